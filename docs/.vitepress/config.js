import { readFileSync } from 'node:fs'
import { defineConfig } from 'vitepress'

// The pages stay plain Markdown in docs, which this builds as it is. A dead link between them fails the build.
const source = 'https://github.com/valetkey/valetkey/blob/main/'

// sidebar has the sections of the map and their pages, by their headings.
function sidebar() {
  const read = (name) => readFileSync(new URL('../' + name, import.meta.url), 'utf8')
  return read('README.md').split(/^## /m).slice(1).map((section) => ({
    text: section.slice(0, section.indexOf('\n')),
    items: [...section.matchAll(/\]\(([\w-]+\.md)\)/g)].map(([, page]) => ({ text: read(page).match(/^# (.*)$/m)[1], link: '/' + page.slice(0, -3) })),
  }))
}

export default defineConfig({
  title: 'Valetkey',
  description: 'OAuth 2.0 access tokens for Go APIs',
  outDir: '.vitepress/dist',
  rewrites: { 'README.md': 'index.md' },
  cleanUrls: true,
  ignoreDeadLinks: [/^(\.\/)?\.\.\//], // files of the repository, which markdown.config turns into links to it
  themeConfig: {
    sidebar: sidebar(),
    search: { provider: 'local' }, // no service is asked
    socialLinks: [{ icon: 'github', link: 'https://github.com/valetkey/valetkey' }],
  },
  markdown: {
    config(md) {
      md.core.ruler.push('repository', (state) => {
        for (const token of state.tokens.flatMap((t) => t.children ?? [])) {
          const href = token.attrGet?.('href')
          if (token.type === 'link_open' && href?.startsWith('../')) token.attrSet('href', source + href.slice(3))
        }
      })
    },
  },
})
