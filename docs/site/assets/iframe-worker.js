/* The search runs in a Worker, which browsers refuse to start from a file. Where the site is opened as files,
   this stands in for it: the same script in a hidden frame, and messages between the two. */
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      // Scripts run before there is a body only where they are in the head.
      this.inside = new Promise((resolve) => {
        const start = () => {
          document.body.append(frame);
          const inside = frame.contentWindow;
          const load = (address) =>
            new Promise((loaded, failed) => {
              const script = inside.document.createElement("script");
              script.src = address;
              script.onload = loaded;
              script.onerror = () => failed(new Error(`cannot load ${address}`));
              inside.document.head.append(script);
            });
          inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
          inside.importScripts = (...addresses) =>
            addresses.reduce((before, address) => before.then(() => load(address)), Promise.resolve());
          load(new URL(url, location.href).href).then(() => resolve(inside));
        };
        document.body ? start() : document.addEventListener("DOMContentLoaded", start);
      });
    }

    postMessage(data) {
      this.inside.then((inside) => inside.dispatchEvent(new inside.MessageEvent("message", { data })));
    }
  };
}
