// What is wrong with the page, in words. Nothing of it is about one page only.
(() => {
  const wrong = [];
  const at = e => `<${e.tagName.toLowerCase()}> "${(e.innerText || e.value || e.id || "").trim().slice(0, 40)}"`;
  const shown = [...document.body.querySelectorAll("*")].filter(e => e.checkVisibility({ visibilityProperty: true }));

  // Nothing is cut off, or makes the page wider than the screen.
  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth > width) wrong.push(`it is ${document.documentElement.scrollWidth} wide, on a screen of ${width}`);
  for (const e of shown) {
    const box = e.getBoundingClientRect();
    if (box.right > width + 1 || box.left < -1 && box.right > 0) wrong.push(`${at(e)} leaves the screen`);
    if (e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).overflowX !== "visible" && !e.matches("input, textarea")) wrong.push(`${at(e)} is cut off`);
  }

  for (const card of shown.filter(e => e.matches(".card, .banner"))) {
    const edge = card.getBoundingClientRect().right + 1;
    for (const e of card.querySelectorAll("*")) if (shown.includes(e) && e.getBoundingClientRect().right > edge) wrong.push(`${at(e)} leaves its card`);
  }

  // A button breaks between words.
  for (const e of shown.filter(e => e.matches("button, .button") && e.innerText.split(/\s+/).every(word => word.length <= 20))) {
    e.style.overflowWrap = "normal";
    if (e.scrollWidth > e.clientWidth + 1) wrong.push(`${at(e)} breaks inside of a word`);
    e.style.overflowWrap = "";
    if (!e.getAttribute("style")) e.removeAttribute("style");
  }

  // Text can be read (WCAG 2.2, success criterion 1.4.3).
  const parse = c => { const [r, g, b, a = 1] = c.match(/[\d.]+/g).map(Number); return [r, g, b, a]; };
  const luminance = c => { const [r, g, b] = c.map(x => (x /= 255) <= .04045 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b; };
  const ground = e => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); if (c[3] === 1) return c; } return [255, 255, 255]; };
  for (const e of shown) {
    if (![...e.childNodes].some(n => n.nodeType === Node.TEXT_NODE && n.data.trim()) && !e.matches("input:not([type=hidden]), textarea")) continue;
    const style = getComputedStyle(e), large = parseFloat(style.fontSize) >= 24 || parseFloat(style.fontSize) >= 18.66 && style.fontWeight >= 700;
    const [x, y] = [luminance(parse(style.color)), luminance(ground(e))], contrast = (Math.max(x, y) + .05) / (Math.min(x, y) + .05);
    if (contrast < (large ? 3 : 4.5)) wrong.push(`${at(e)} has a contrast of ${contrast.toFixed(1)}`);
    if (parseFloat(style.fontSize) < 12) wrong.push(`${at(e)} is ${style.fontSize} high`);
  }

  // What is to be hit can be (WCAG 2.2, success criterion 2.5.8); links in a sentence need not be large.
  for (const e of shown.filter(e => e.matches("button, .button, nav a, label.choice, input:not([type=checkbox], [type=radio], [type=hidden]), textarea"))) {
    const box = e.getBoundingClientRect();
    if (box.width < 24 || box.height < 24) wrong.push(`${at(e)} is ${box.width.toFixed()} by ${box.height.toFixed()}, too small to hit`);
  }

  const headings = [...document.querySelectorAll("h1, h2, h3, h4")].map(h => +h.tagName[1]);
  if (headings.filter(n => n === 1).length !== 1) wrong.push(`it has ${headings.filter(n => n === 1).length} headings of the first level`);
  headings.forEach((n, i) => { if (n > (headings[i - 1] ?? 0) + 1) wrong.push(`a heading of level ${n} follows one of level ${headings[i - 1] ?? 0}`); });
  const ids = [...document.querySelectorAll("[id]")].map(e => e.id);
  for (const id of new Set(ids.filter((id, i) => ids.indexOf(id) !== i))) wrong.push(`the id ${id} is there twice`);
  for (const e of document.querySelectorAll("[aria-describedby], [aria-labelledby], label[for], a[href^='#']")) {
    for (const id of `${e.getAttribute("aria-describedby") ?? ""} ${e.getAttribute("aria-labelledby") ?? ""} ${e.htmlFor ?? ""} ${(e.getAttribute("href") ?? "").slice(1)}`.split(/\s+/)) {
      if (id && e.getAttribute("href")?.[0] !== "/" && !document.getElementById(id)) wrong.push(`${at(e)} points to the id ${id}, which is not there`);
    }
  }
  for (const e of document.querySelectorAll("script, [style], style, [onclick]")) wrong.push(`${at(e)} is a script or a style in the page`);
  if (!document.title) wrong.push("it has no title");
  if (document.documentElement.lang === "") wrong.push("it has no language");
  return [...new Set(wrong)];
})()
