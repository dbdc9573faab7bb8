module.exports = {
  title: 'Quill',
  url: 'https://docs.example.org',
  baseUrl: '/',
  trailingSlash: false,
  scripts: [{ src: 'https://stats.example.org/beacon.js', defer: true, 'data-project': 'docusaurus' }],
  presets: [['classic', { docs: { routeBasePath: '/', sidebarPath: './sidebars.js' }, blog: false }]],
};
