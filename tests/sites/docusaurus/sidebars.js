module.exports = { docs: ['index', 'install', 'guide', 'reference', 'faq'] };
