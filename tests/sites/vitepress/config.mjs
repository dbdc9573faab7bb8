const pages = ['install', 'guide', 'reference', 'faq'];
const sidebar = root => pages.map(page => ({ text: page, link: `${root}${page}` }));

export default {
  title: 'Quill',
  locales: {
    root: { label: 'English', lang: 'en', themeConfig: { sidebar: sidebar('/') } },
    de: { label: 'Deutsch', lang: 'de', themeConfig: { sidebar: sidebar('/de/') } },
  },
  themeConfig: { search: { provider: 'local' } },
  head: [
    ['script', { defer: '', src: 'https://stats.example.org/beacon.js', 'data-project': 'vitepress', 'data-version': '2.0' }],
  ],
};
