// The page fetches itself again when the service has something new, and takes over the difference. All
// text comes from the service's template: this script writes no markup.
"use strict";

const retry = 1000; // ms
let current = null; // the request in flight

// takeOver makes the element old equal to fresh. Elements that are in both stay, so that the focus, a
// selection and what a screen reader has read stay.
function takeOver(old, fresh) {
  if (old.isEqualNode(fresh)) return;
  for (const {name} of [...old.attributes]) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
  for (const {name, value} of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  const keyed = new Map(), wanted = new Set([...fresh.children].map(e => e.id));
  for (const e of [...old.children]) {
    if (e.id && !wanted.has(e.id)) e.remove();
    else if (e.id) keyed.set(e.id, e);
  }
  let at = old.firstChild;
  for (const want of [...fresh.childNodes]) {
    const have = want.id ? keyed.get(want.id) : at;
    if (want.id && have) while (at && at !== have && !at.id) at = removed(at); // do not move what has the focus
    if (!have || have.nodeName !== want.nodeName || (have.id || "") !== (want.id || "")) {
      old.insertBefore(want, at);
      continue;
    }
    if (have === at) at = at.nextSibling;
    else old.insertBefore(have, at);
    if (have.nodeType === Node.ELEMENT_NODE) takeOver(have, want);
    else if (have.nodeValue !== want.nodeValue) have.nodeValue = want.nodeValue;
  }
  while (at) at = removed(at);
}

// removed removes a node, and returns the one after it.
function removed(node) {
  const next = node.nextSibling;
  node.remove();
  return next;
}

// show takes over the parts of a page that change. The filter is the user's.
function show(fresh) {
  document.title = fresh.title;
  for (const part of ["#main", "#summary", "h1", "nav", "footer"]) {
    const old = document.querySelector(part), now = fresh.querySelector(part);
    if (old && now) takeOver(old, now);
    else if (old) old.remove();
  }
  const verdict = document.querySelector("#verdict"), now = fresh.querySelector("#verdict");
  if (verdict && now && document.activeElement !== verdict) {
    const chosen = verdict.value;
    takeOver(verdict, now);
    verdict.value = chosen;
  }
}

function lost(text) {
  const p = document.querySelector("#lost");
  if (p.hidden !== !text || p.textContent !== text) p.textContent = text;
  p.hidden = !text;
}

// follow fetches the page until the document is hidden. version is what the page shows; 0 fetches at
// once.
async function follow(version) {
  if (current) current.abort();
  const mine = current = new AbortController();
  let since = null;
  while (!document.hidden && mine === current) {
    try {
      const url = new URL(location.href);
      url.searchParams.set("after", version);
      const answer = await fetch(url, {signal: mine.signal, cache: "no-store"});
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      const main = fresh.querySelector("#main");
      if (mine !== current) return;
      if (!main) throw new Error("HTTP " + answer.status);
      version = main.dataset.version;
      show(fresh);
      since = null;
      lost("");
      if (answer.status === 404) return;
    } catch (err) {
      if (mine !== current) return;
      since ??= new Date();
      lost("The service has not answered since " + since.toLocaleTimeString() + ": what is shown may be old.");
      await new Promise(done => setTimeout(done, retry));
    }
  }
}

function filter() {
  const form = document.querySelector("#filter"), query = new URLSearchParams();
  for (const [name, value] of new FormData(form)) if (value) query.set(name, value);
  history.replaceState(null, "", "?" + query);
  follow(0);
}

document.documentElement.classList.add("live");
const form = document.querySelector("#filter");
if (form) {
  let typing;
  form.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(filter, 120);
  });
  form.addEventListener("submit", event => {
    event.preventDefault();
    filter();
  });
}
document.addEventListener("keydown", event => {
  const q = document.querySelector("#q");
  if (!q || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "/" && !event.target.closest("input, select, textarea")) {
    event.preventDefault();
    q.focus();
    q.select();
  } else if (event.key === "Escape" && event.target === q && q.value) {
    q.value = "";
    filter();
  }
});
document.addEventListener("visibilitychange", () => document.hidden || follow(0));
follow(document.querySelector("#main").dataset.version);
