// A browser starts no worker for a page that was opened from a folder. The search then runs in a hidden frame instead,
// by the two names that the theme looks for. Over http nothing changes.
if (location.protocol === "file:") {
  window.Worker = window.IFrameWorker = class extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.body.append(frame)
      this.inner = frame.contentWindow
      this.inner.document.open()
      this.inner.document.write("<body></body>")
      this.inner.document.close()
      const load = (source) =>
        new Promise((done, failed) => {
          const script = this.inner.document.createElement("script")
          Object.assign(script, { src: source, onload: done, onerror: failed })
          this.inner.document.body.append(script)
        })
      this.inner.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }))
      this.inner.importScripts = (...sources) => sources.reduce((before, next) => before.then(() => load(next)), Promise.resolve())
      this.ready = load(url)
    }

    postMessage(data) {
      this.ready.then(() => this.inner.dispatchEvent(new MessageEvent("message", { data })))
    }
  }
}
