"use strict";
(() => {
  const inside = document.getElementById("inside");
  const live = document.getElementById("live");
  let shownAt = performance.now();
  let heardAt = performance.now();

  // As `seconds` of the server says it.
  const spoken = (ms) => {
    const s = Math.ceil(ms / 1000);
    if (s < 120) return s + " s";
    if (s < 7200) return Math.floor(s / 60) + " min " + (s % 60) + " s";
    return Math.floor(s / 3600) + " h " + Math.floor((s / 60) % 60) + " min";
  };
  const pressure = (percent) => (percent < 60 ? "good" : percent < 85 ? "warn" : "bad");

  // Counts on from what the server said last.
  const tick = () => {
    const gone = performance.now() - shownAt;
    for (const element of inside.querySelectorAll("[data-age]")) {
      const age = Number(element.dataset.age) + gone;
      if (element.dataset.of) {
        const percent = Math.min(100, (age * 100) / Number(element.dataset.of));
        element.setAttribute("width", percent.toFixed(1));
        element.setAttribute("class", "fill " + pressure(percent));
      } else {
        element.textContent = spoken(age);
      }
    }
    for (const element of inside.querySelectorAll("[data-left]")) {
      element.textContent = spoken(Math.max(0, Number(element.dataset.left) - gone));
    }
    // The server gives a sign of life every 15 s.
    if (performance.now() - heardAt > 40000) lost();
  };
  const say = (kind, text) => {
    if (live.textContent !== text) live.textContent = text;
    live.className = kind;
  };
  const lost = () => {
    const since = new Date(Date.now() - (performance.now() - heardAt)).toLocaleTimeString();
    say("off", "No connection; this is how it was at " + since + ".");
  };
  const parts = (root) => [...root.querySelectorAll("header, .banner, .card, #history")];
  // As the server wrote them; what is on the screen has counted on since.
  let shown = parts(inside).map((part) => part.outerHTML);
  const show = (markup) => {
    // Only parts that differ are exchanged, so that a selection or a reader stays where it is, and
    // an alert is read out once.
    const next = new DOMParser().parseFromString("<div>" + markup + "</div>", "text/html");
    const before = parts(inside);
    const after = parts(next.body);
    const markups = after.map((part) => part.outerHTML);
    const same = before.length === after.length &&
      before.every((part, i) => part.tagName === after[i].tagName && part.id === after[i].id);
    if (same) {
      before.forEach((part, i) => {
        if (markups[i] !== shown[i]) part.replaceWith(document.adoptNode(after[i]));
      });
    } else {
      inside.replaceChildren(...next.body.firstChild.childNodes);
    }
    shown = markups;
    const title = inside.querySelector("h1").lastChild.textContent.trim();
    document.title = title + document.title.replace(/^.*?( · )/, "$1");
    shownAt = performance.now();
    tick();
  };

  const query = new URLSearchParams(location.search).get("group");
  const events = new EventSource("/api/v1/events?as=html" + (query ? "&group=" + query : ""));
  events.addEventListener("page", (event) => {
    heardAt = performance.now();
    say("on", "Live");
    show(event.data);
  });
  events.addEventListener("life", () => { heardAt = performance.now(); });
  events.onerror = lost;
  setInterval(tick, 1000);
})();
