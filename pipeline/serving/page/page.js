// The service's page: take a sound, send it to the service on the same host, show the answer.
// Start reading at the bottom: the last section connects the page to the functions above.

const RECORD_SECONDS = 30; // a recording stops automatically
const FIRST_BARS = 10; // the other classes are behind a button
const LANES = 5; // classes drawn over time
const COLOURS = 10; // --class-0 ... in page.css; every mark also has a name, so colours may repeat

// Viridis at 17 even steps; linear interpolation between them is within 1% of it.
const VIRIDIS =
  "440154 48186a 472d7b 424086 3b528b 33638d 2c728e 26828e 21918c " +
  "1fa088 28ae80 3fbc73 5ec962 84d44b addc30 d8e219 fde725";

const $ = (id) => document.getElementById(id);

const page = {
  model: null, // the answer of GET /model
  answer: null, // the latest answer of POST /classify
  file: "", // the name of the clip that it is about
  asking: null, // AbortController of the request in progress
};

// ---------------------------------------------------------------- small things

/** Makes an element. A name with a hyphen is an attribute, any other name a property. */
function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (key.includes("-")) element.setAttribute(key, value);
    else element[key] = value;
  }
  element.append(...children);
  return element;
}

/** Makes an SVG element. All names are attributes. */
function draw(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1);
const plain = (label) => label.replaceAll("_", " ");
const share = (p) => (p < 0.0005 ? "<0.1%" : `${(100 * p).toFixed(1)}%`);
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const number = (value) => String(Math.round(value * 10) / 10);

/** 75.2 -> "1:15", or with tenths "1:15.2". */
function clock(seconds, digits = 0) {
  const rounded = Number(seconds.toFixed(digits));
  const rest = (rounded % 60).toFixed(digits);
  return `${Math.floor(rounded / 60)}:${rest.padStart(digits ? 3 + digits : 2, "0")}`;
}

/** Gives an element the colour of its class, which depends on the label's place in the model's list. */
function tint(element, label) {
  const labels = page.model?.labels ?? Object.keys(page.answer.probabilities).sort();
  element.style.setProperty("--class", `var(--class-${labels.indexOf(label) % COLOURS})`);
  return element;
}

const swatch = (label) => tint(make("span", { className: "swatch", "aria-hidden": "true" }), label);

/** Puts at most seven marks along an axis, so that they fit on a screen 320 pixels wide. */
function ticks(axis, span, text = number) {
  const steps = [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600];
  const step = steps.find((length) => span / length <= 6) ?? span / 6;
  const marks = [];
  for (let at = 0; at <= span * 1.0001; at += step) {
    const mark = make("span", { textContent: text(at) });
    mark.style.left = `${(100 * at) / span}%`;
    mark.className = at === 0 ? "first" : at > 0.96 * span ? "last" : "";
    marks.push(mark);
  }
  axis.replaceChildren(...marks);
}

// ---------------------------------------------------------------- status and problems

function say(text, busy = false) {
  $("problem").replaceChildren();
  $("status").textContent = text;
  $("status").classList.toggle("busy", busy);
}

/** Says what went wrong. Hides the old answer, so that nobody takes it for the new clip's. */
function complain(text, again) {
  say("");
  $("result").hidden = true;
  player.stop();
  const parts = [make("p", { textContent: text })];
  if (again) {
    const button = { type: "button", className: "button", textContent: "Try again", onclick: again };
    parts.push(make("button", button));
  }
  $("problem").replaceChildren(make("div", { className: "problem" }, ...parts));
}

// ---------------------------------------------------------------- the service

/** An error whose message is for the user; `passing` if the same request may work later. */
class RequestError extends Error {
  constructor(message, passing) {
    super(message);
    this.passing = passing;
  }
}

async function call(address, options) {
  let response;
  try {
    response = await fetch(address, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new RequestError("The service cannot be reached. Check your connection, or try again later.", true);
  }
  if (response.ok) return response;
  // A proxy in front of the service may answer in HTML; then only the status is shown.
  const said = (await response.json().catch(() => ({}))).error;
  const text = said ?? `The service answered with status ${response.status}.`;
  const wait = Number(response.headers.get("Retry-After"));
  const when = wait > 0 ? ` Please wait ${wait} ${wait === 1 ? "second" : "seconds"}.` : "";
  throw new RequestError(text + when, response.status >= 500);
}

async function loadModel() {
  try {
    page.model = await (await call("/model")).json();
  } catch (error) {
    complain(error.message, () => {
      say("Loading the model…", true);
      loadModel().then(() => page.model && say(""));
    });
    return;
  }
  showModel(page.model);
}

/** Length of a clip in seconds; NaN or Infinity if the browser cannot tell. */
function lengthOf(sound) {
  const probe = new Audio();
  const address = URL.createObjectURL(sound);
  return new Promise((resolve) => {
    const done = () => {
      URL.revokeObjectURL(address);
      resolve(probe.duration);
    };
    probe.onloadedmetadata = probe.onerror = done;
    setTimeout(done, 1000); // some phones do not load a sound before it is played
    probe.preload = "metadata";
    probe.src = address;
  });
}

/** Classifies a clip. `get` returns it as a Blob. A new request cancels the previous one. */
async function ask(name, get) {
  page.asking?.abort();
  const { signal } = (page.asking = new AbortController());
  say(`Listening to ${name}…`, true);
  $("result").setAttribute("aria-busy", "true");
  try {
    const sound = await get(signal);
    const most = page.model?.limits.bytes;
    // The service would reject it too, but only after all of it was sent.
    if (sound.size > most) throw new RequestError(`The file is larger than ${Math.floor(most / 1e6)} MB.`, false);
    // A clip of unknown length may be long.
    const long = !((await lengthOf(sound)) <= page.model?.features.seconds);
    const form = new FormData();
    form.append("file", sound, name);
    const started = performance.now();
    const options = { method: "POST", body: form, signal };
    const response = await call(`/classify?picture=true&windows=${long}`, options);
    const answer = await response.json();
    const took = (performance.now() - started) / 1000;
    if (signal.aborted) return;
    Object.assign(page, { answer, file: name });
    show(answer, sound, name);
    say(`${name}: ${spoken(answer)}. Answered in ${took.toFixed(2)} s.`);
    if (String(answer.model.version) !== String(page.model?.version)) loadModel(); // a new version was deployed
  } catch (error) {
    if (signal.aborted) return;
    if (!(error instanceof RequestError)) {
      complain(`${name}: the page could not show the answer.`);
      throw error;
    }
    complain(`${name}: ${error.message}`, error.passing && (() => ask(name, get)));
  } finally {
    if (!signal.aborted) $("result").removeAttribute("aria-busy");
  }
}

// ---------------------------------------------------------------- the answer

function show(answer, sound, name) {
  const { windows, picture } = answer;
  tint($("answer"), answer.label);
  const { known, label, probability } = answer;
  $("unknown").hidden = known;
  $("answer").classList.toggle("unknown", !known);
  $("answer-label").textContent = known ? sentence(plain(label)) : `Closest match: ${plain(label)}`;
  $("answer-probability").textContent = share(probability);
  $("basis").textContent = basis(answer);
  $("clip").textContent = name;
  $("result").hidden = false;
  player.load(sound, answer.duration);
  showWaveform(picture.waveform);
  ticks($("time-axis"), answer.duration, answer.duration < 120 ? number : clock);
  $("time-title").textContent = answer.duration < 120 ? "Time (seconds)" : "Time (minutes:seconds)";
  timeline.show(windows ?? [], answer);
  showBars(answer.probabilities);
  showSpectrogram(picture.spectrogram, answer);
  const top = $("result").getBoundingClientRect().top;
  if (top > 0.6 * innerHeight) {
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    $("result").scrollIntoView({ behavior: still ? "auto" : "smooth" });
  }
}

/** The prediction in one sentence; an unknown sound is probably none of the model's labels. */
function spoken({ known, label, probability }) {
  const match = `${plain(label)} (${share(probability)})`;
  return known ? match : `not one of the sounds I know; closest match: ${match}`;
}

/** Says which model made the prediction, and from which part of the clip. */
function basis({ windows, seconds, duration, model }) {
  const all = seconds > duration - 0.05;
  const part = all ? `the whole clip (${number(duration)} s)` : `the first ${number(seconds)} of ${number(duration)} s`;
  const mean = windows?.length > 1 ? `; the probabilities are the mean over ${windows.length} windows` : "";
  return `${model.name}, version ${model.version}, analysed ${part}${mean}.`;
}

/** Labels with their probabilities, the most probable first: JavaScript moves keys like "1" to the front. */
function ranked(probabilities) {
  return Object.entries(probabilities).sort(([, a], [, b]) => b - a);
}

function showBars(probabilities) {
  const rows = ranked(probabilities).map(([label, p], place) => {
    const bar = tint(make("div"), label);
    bar.style.width = `${100 * p}%`;
    return make(
      "tr",
      { hidden: place >= FIRST_BARS },
      make("th", { scope: "row", textContent: sentence(plain(label)) }),
      make("td", { "aria-hidden": "true" }, make("div", { className: "track" }, bar)),
      make("td", { className: "number", textContent: share(p) }),
    );
  });
  $("bars").replaceChildren(...rows);
  $("all").hidden = rows.length <= FIRST_BARS;
  $("all").textContent = `Show all ${rows.length}`;
  $("all").setAttribute("aria-expanded", "false");
}

function showAllBars() {
  for (const row of $("bars").rows) row.hidden = false;
  $("all").setAttribute("aria-expanded", "true");
  $("all").hidden = true;
}

/** Draws the curve twice, the upper one clipped at the playhead; CSS colours them in both schemes. */
function showWaveform(pairs) {
  // A quiet clip is drawn as high as a loud one, because loudness makes no difference to the model.
  const peak = Math.max(1e-6, ...pairs.flat().map(Math.abs));
  const point = (value, at) => `${at} ${(50 - (46 * value) / peak).toFixed(1)}`;
  const upper = pairs.map(([, high], at) => point(high, at + 0.5));
  const lower = pairs.map(([low], at) => point(low - 0.01 * peak, at + 0.5));
  const d = `M0 50L${upper.join("L")}L${pairs.length} 50L${lower.reverse().join("L")}Z`;
  const box = { viewBox: `0 0 ${pairs.length} 100`, preserveAspectRatio: "none", "aria-hidden": "true" };
  const curve = (attributes) => draw("svg", { ...box, ...attributes }, draw("path", { d }));
  $("wave").replaceChildren(curve({}), curve({ class: "played" }));
  player.show();
}

/** Slaney's mel scale, as in librosa: linear up to 1 kHz, logarithmic above. */
const mel = (hertz) =>
  hertz < 1000 ? (3 * hertz) / 200 : 15 + (27 * Math.log(hertz / 1000)) / Math.log(6.4);

/** Places of the numbers beside the bands, as [share of the height, text]. */
function bandMarks(kind, bands) {
  const { sample_rate = 22050, fmin = 0, fmax = sample_rate / 2 } = page.model?.features ?? {};
  const row = {
    logmel: (hertz) => ((mel(hertz) - mel(fmin)) / (mel(fmax) - mel(fmin))) * (bands + 1) - 0.5,
    stft: (hertz) => (2 * hertz * (bands - 1)) / sample_rate + 0.5,
  }[kind];
  const marks = row
    ? [0, 500, 1000, 2000, 4000, 8000, 16000].map((hertz) => [row(hertz) / bands, number(hertz / 1000)])
    : [0, 0.25, 0.5, 0.75].map((part) => [part + 0.5 / bands, String(Math.round(part * bands))]);
  const shown = [];
  for (const [at, text] of marks) {
    const room = !shown.length || at - shown.at(-1)[0] > 0.08;
    if (at > -0.05 && at <= 1 && room) shown.push([Math.max(at, 0), text]);
  }
  return shown;
}

function paint(canvas, { bands, frames, values }, colours) {
  const context = Object.assign(canvas, { width: frames, height: bands }).getContext("2d");
  const image = context.createImageData(frames, bands);
  const bytes = Uint8Array.from(atob(values), (character) => character.charCodeAt(0));
  bytes.forEach((value, i) => {
    const place = (value / 255) * (colours.length - 1);
    const from = colours[Math.floor(place)];
    const to = colours[Math.ceil(place)];
    const pixel = 4 * ((bands - 1 - Math.floor(i / frames)) * frames + (i % frames)); // the lowest band is at the bottom
    for (let c = 0; c < 3; c++) image.data[pixel + c] = from[c] + (to[c] - from[c]) * (place % 1);
    image.data[pixel + 3] = 255;
  });
  context.putImageData(image, 0, 0);
}

function showSpectrogram(picture, { duration, windows }) {
  const { bands, frames, kind, low, high, seconds } = picture;
  const colours = VIRIDIS.split(" ").map((hex) => [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16)));
  paint($("spectrogram"), picture, colours);

  const cepstral = kind === "mfcc";
  const marks = bandMarks(kind, bands).map(([at, text]) => {
    const mark = make("span", { textContent: text });
    mark.style.bottom = `${100 * at}%`;
    return mark;
  });
  $("band-axis").replaceChildren(...marks);
  $("band-title").textContent = cepstral ? "Coefficient" : "Frequency (kHz)";
  const start = windows?.[0].start ?? 0; // the picture shows the first window that is not silent
  ticks($("frame-axis"), seconds, (at) => number(start + at));
  $("colours").style.background = `linear-gradient(90deg, ${colours.map((rgb) => `rgb(${rgb})`).join()})`;
  $("low").textContent = Math.round(low) + (cepstral ? "" : " dB");
  $("high").textContent = Math.round(high) + (cepstral ? "" : " dB");

  let heard = `All ${number(seconds)} s`;
  if (start > 0) heard = `${number(start)} to ${number(start + seconds)} s`;
  else if (duration > seconds + 0.05) heard = `The first ${number(seconds)} s`;
  else if (duration < seconds - 0.05) heard = `${number(duration)} s, padded with silence to ${number(seconds)} s`;
  const what = { logmel: "mel bands", stft: "frequencies", mfcc: "cepstral coefficients" }[kind];
  $("seen").textContent = `${heard}: ${frames} time steps and ${bands} ${what}.`;
  $("spectrogram").setAttribute("aria-label", `Spectrogram: ${$("seen").textContent}`);
}

// ---------------------------------------------------------------- the player

const player = {
  audio: $("audio"),
  seconds: 1,
  usable: false,

  load(sound, seconds) {
    this.stop();
    URL.revokeObjectURL(this.audio.src);
    this.seconds = Math.max(seconds, 0.001);
    this.usable = true;
    this.audio.src = URL.createObjectURL(sound);
    $("play").disabled = false;
    $("wave").setAttribute("aria-valuemax", seconds.toFixed(1));
  },

  stop() {
    this.audio.pause();
  },

  toggle() {
    if (this.audio.paused) this.play();
    else this.stop();
  },

  play() {
    // If playing fails, the audio element's error event reports it.
    if (this.usable) this.audio.play().catch(() => {});
  },

  seek(seconds) {
    this.audio.currentTime = clamp(seconds, 0, this.seconds);
    this.show();
  },

  show() {
    const now = clamp(this.audio.currentTime, 0, this.seconds);
    const done = 100 * (now / this.seconds);
    $("playhead").style.left = `${done}%`;
    const played = $("wave").querySelector(".played");
    if (played) played.style.clipPath = `inset(0 ${100 - done}% 0 0)`;
    const text = `${clock(now, 1)} / ${clock(this.seconds, 1)}`;
    $("time").textContent = this.usable ? text : "This browser cannot play this format. The result is not affected.";
    $("wave").setAttribute("aria-valuenow", now.toFixed(1));
    $("wave").setAttribute("aria-valuetext", `${now.toFixed(1)} of ${this.seconds.toFixed(1)} seconds`);
  },

  /** Updates the display every frame; the element's own events come only four times a second. */
  follow() {
    player.show();
    timeline.follow(player.audio.currentTime);
    if (!player.audio.paused) requestAnimationFrame(player.follow);
  },

  wire() {
    const { audio } = this;
    for (const event of ["play", "pause", "ended"]) {
      audio.addEventListener(event, () => {
        $("play").classList.toggle("playing", !audio.paused);
        $("play").setAttribute("aria-label", audio.paused ? "Play" : "Pause");
        this.follow();
      });
    }
    audio.addEventListener("seeked", () => this.show());
    audio.addEventListener("error", () => {
      this.usable = false;
      $("play").disabled = true;
      this.show();
    });
    audio.addEventListener("loadedmetadata", () => {
      // A recording by MediaRecorder has no length in its header. The browser can seek in it only
      // after it has looked for the end.
      if (audio.duration !== Infinity) return;
      audio.currentTime = 1e6;
      audio.addEventListener("seeked", () => this.seek(0), { once: true });
    });
    $("play").addEventListener("click", () => this.toggle());
    const wave = $("wave");
    const point = (event) => {
      const box = wave.getBoundingClientRect();
      this.seek(((event.clientX - box.left) / box.width) * this.seconds);
    };
    wave.addEventListener("pointerdown", (event) => {
      wave.setPointerCapture(event.pointerId);
      point(event);
    });
    wave.addEventListener("pointermove", (event) => event.buttons && point(event));
    onKeys(
      wave,
      (steps) => this.seek(audio.currentTime + steps * Math.max(0.1, this.seconds / 100)),
      (end) => this.seek(end * this.seconds),
    );
  },
};

/** Lets a slider react to keys: arrows and Page keys step, Home and End jump, Space plays. */
function onKeys(slider, step, goTo) {
  const steps = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 10, PageDown: -10 };
  slider.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.key in steps) step(steps[event.key]);
    else if (event.key === "Home" || event.key === "End") goTo(event.key === "End" ? 1 : 0);
    else if (event.key === " " || event.key === "Enter") player.toggle();
    else return;
    event.preventDefault();
  });
}

// ---------------------------------------------------------------- the timeline

const timeline = {
  windows: [], // each with `from` and `to`: its own part of the strip
  duration: 1,
  at: 0,
  pointed: false,

  show(windows, { duration, probabilities }) {
    // A long clip with sound in only one window still gets a timeline.
    const shown = windows.some(({ start, end }) => duration > end - start + 0.05);
    for (const id of ["timeline", "timeline-more"]) $(id).hidden = !shown;
    this.windows = [];
    if (!shown) return;
    this.duration = duration;
    // Windows overlap; the border between two is drawn in the middle of the overlap.
    // The service leaves out silent windows, so there may be gaps.
    const middle = (one, next) =>
      one && next && next.start < one.end ? (one.end + next.start) / 2 : undefined;
    this.windows = windows.map((window, i) => ({
      ...window,
      from: middle(windows[i - 1], window) ?? window.start,
      to: middle(window, windows[i + 1]) ?? Math.min(window.end, duration),
    }));

    const cells = this.windows.map(({ label, from, to }) => this.place(tint(make("div"), label), from, to));
    $("strip").replaceChildren(...cells);
    const winners = new Set(windows.map(({ label }) => label));
    const lanes = ranked(probabilities)
      .map(([label]) => label)
      .filter((label) => winners.has(label))
      .slice(0, LANES);
    $("lanes").replaceChildren(...lanes.map((label) => this.lane(label)));
    const rows = windows.map(({ start, end, label, probability }) =>
      make(
        "tr",
        {},
        make("td", { textContent: `${number(start)} to ${number(end)}` }),
        make("td", {}, swatch(label), sentence(plain(label))),
        make("td", { className: "number", textContent: share(probability) }),
      ),
    );
    $("windows").replaceChildren(...rows);
    $("timeline").setAttribute("aria-valuemax", windows.length);
    this.select(0);
  },

  lane(label) {
    const box = { viewBox: `0 0 ${this.duration} 1`, preserveAspectRatio: "none" };
    const bars = this.windows.map(({ from, to, probabilities, label: winner }) => {
      const height = probabilities[label];
      const place = { x: from, width: to - from, y: 1 - height, height };
      return draw("rect", winner === label ? place : { ...place, class: "lost" });
    });
    const name = make("p", {}, swatch(label), sentence(plain(label)));
    return make("div", { className: "lane" }, name, tint(draw("svg", box, ...bars), label));
  },

  place(element, from, to) {
    element.style.left = `${(100 * from) / this.duration}%`;
    element.style.width = `${(100 * (Math.min(to, this.duration) - from)) / this.duration}%`;
    return element;
  },

  find(seconds) {
    const away = this.windows.map(({ from, to }) => Math.max(from - seconds, seconds - to));
    return away.indexOf(Math.min(...away));
  },

  select(i) {
    this.at = i;
    const { start, end, probabilities } = this.windows[i];
    const [first, second] = ranked(probabilities);
    const text = `${number(start)} to ${number(end)} s: ${plain(first[0])} ${share(first[1])}`;
    $("detail").textContent = text + (second ? `, then ${plain(second[0])} ${share(second[1])}` : "");
    this.place($("cursor"), start, end);
    $("timeline").setAttribute("aria-valuenow", i + 1);
    $("timeline").setAttribute("aria-valuetext", text.replace(" s:", " seconds:"));
  },

  /** While a clip plays, shows the current window, unless the pointer is on another one. */
  follow(seconds) {
    if (!this.windows.length || this.pointed || player.audio.paused) return;
    const i = this.find(seconds);
    if (i !== this.at) this.select(i);
  },

  step(i) {
    this.select(clamp(i, 0, this.windows.length - 1));
    player.seek(this.windows[this.at].start);
  },

  wire() {
    const area = $("timeline");
    const under = (event) => {
      const box = area.getBoundingClientRect();
      return this.find(((event.clientX - box.left) / box.width) * this.duration);
    };
    area.addEventListener("pointermove", (event) => {
      this.pointed = true;
      this.select(under(event));
    });
    area.addEventListener("pointerleave", () => (this.pointed = false));
    area.addEventListener("click", (event) => {
      this.step(under(event));
      player.play();
    });
    onKeys(area, (steps) => this.step(this.at + steps), (end) => this.step(end * this.windows.length));
  },
};

// ---------------------------------------------------------------- the microphone

const MICROPHONE = {
  NotAllowedError: "The microphone is blocked: allow it for this page, then record again.",
  NotFoundError: "No microphone was found: connect one, or choose a file.",
  NotReadableError: "The microphone cannot be used: another program may be using it.",
};

function showFace(id) {
  for (const face of ["idle", "recording"]) $(face).classList.toggle("away", face !== id);
}

async function record() {
  if (!navigator.mediaDevices || !window.MediaRecorder) {
    complain("Browsers allow recording only on pages loaded over https or from localhost: choose a file instead.");
    return;
  }
  let stream;
  try {
    // These filters are made for phone calls and would remove the sounds that we want to classify.
    const audio = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
    stream = await navigator.mediaDevices.getUserMedia({ audio });
  } catch (error) {
    complain(MICROPHONE[error.name] ?? "The microphone cannot be used: choose a file instead.");
    return;
  }
  player.stop();
  const types = ["audio/webm;codecs=opus", "audio/mp4"];
  const mimeType = types.find((type) => MediaRecorder.isTypeSupported(type));
  const recorder = new MediaRecorder(stream, mimeType ? { mimeType } : {});
  const level = listen(stream);
  const parts = [];
  let kept = true;
  recorder.ondataavailable = (event) => parts.push(event.data);
  recorder.onstop = () => {
    clearInterval(clockwork);
    level.close();
    for (const track of stream.getTracks()) track.stop();
    showFace("idle");
    $("record").focus();
    if (!kept) return say("");
    const type = recorder.mimeType.split(";")[0];
    const sound = new Blob(parts, { type });
    return ask(type === "audio/mp4" ? "recording.mp4" : "recording.webm", () => sound);
  };
  const stop = (keep) => {
    kept = keep;
    if (recorder.state === "recording") recorder.stop();
  };
  $("stop").onclick = () => stop(true);
  $("cancel").onclick = () => stop(false);
  $("timer").textContent = clock(0);
  showFace("recording");
  $("stop").focus();
  say(`Recording for at most ${RECORD_SECONDS} seconds.`);
  recorder.start();
  const started = performance.now();
  const clockwork = setInterval(() => {
    const seconds = (performance.now() - started) / 1000;
    $("timer").textContent = clock(Math.floor(Math.min(seconds, RECORD_SECONDS)));
    $("level").style.transform = `scaleX(${level.read()})`;
    if (seconds >= RECORD_SECONDS) stop(true);
  }, 100);
}

/** Measures the level of a stream, 0 to 1 for -60 to 0 dB, so that a dead microphone is noticed. */
function listen(stream) {
  const context = new AudioContext();
  const analyser = context.createAnalyser();
  context.createMediaStreamSource(stream).connect(analyser);
  const samples = new Float32Array(analyser.fftSize);
  return {
    read() {
      analyser.getFloatTimeDomainData(samples);
      const power = samples.reduce((sum, value) => sum + value * value, 0) / samples.length;
      return clamp(1 + Math.log10(power + 1e-9) / 6, 0, 1);
    },
    close: () => context.close(),
  };
}

// ---------------------------------------------------------------- the model

function showModel(model) {
  const { name, version, aliases = [], metrics, dataset, limits, lineage, examples } = model;
  $("model").hidden = false;
  const known = aliases.length ? ` (${aliases.join(", ")})` : "";
  $("model-name").textContent = `${name}, version ${version}${known}`;

  const { accuracy, accuracy_low: low, accuracy_high: high, accuracy_confidence: level, clips } = metrics ?? {};
  $("accuracy").hidden = accuracy === undefined;
  if (accuracy !== undefined) {
    $("interval-range").style.left = share(low ?? accuracy);
    $("interval-range").style.right = share(1 - (high ?? accuracy));
    $("interval-value").style.left = share(accuracy);
    const which = level === undefined ? "confidence interval" : `${number(100 * level)}% confidence interval`;
    const between = low === undefined ? "" : ` (${which} ${share(low)} to ${share(high)})`;
    const told = `Test accuracy ${share(accuracy)}${between}, on ${clips} clips that were not used in training.`;
    $("accuracy-text").textContent = told;
  }

  const title = dataset.title ?? dataset.name;
  const link = make("a", { href: dataset.homepage ?? "", rel: "noreferrer", textContent: title });
  const licence = dataset.license ? ` (licence: ${dataset.license})` : "";
  $("dataset").replaceChildren(
    "Trained on ",
    dataset.homepage ? link : title,
    `${licence} to recognise ${model.labels.length} sounds.`,
  );
  $("lineage").replaceChildren(
    ...Object.entries(lineage ?? {}).map(([key, value]) =>
      make("tr", {}, make("th", { scope: "row", textContent: key }), make("td", { textContent: String(value) }))),
  );

  const most = `${Math.floor(limits.bytes / 1e6)} MB and ${number(limits.seconds / 60)} minutes`;
  $("limits").textContent = `WAV, FLAC, Ogg, MP3, M4A or WebM, up to ${most}`;

  $("examples").replaceChildren(
    ...(examples ?? []).map(({ label, url }) => {
      const get = async (signal) => (await call(url, { signal })).blob();
      const onclick = () => ask(decodeURIComponent(url.split("/").pop()), get);
      const button = { type: "button", className: "button chip", onclick };
      return make("li", {}, make("button", button, swatch(label), sentence(plain(label))));
    }),
  );
  $("examples-title").hidden = !examples?.length;
  showCredits((examples ?? []).filter(({ attribution }) => attribution));
}

/** Names clip, recording, dataset and licence of each example whose licence requires it. */
function showCredits(examples) {
  const link = (text, href) => (href ? make("a", { href, rel: "noreferrer", textContent: text }) : text);
  $("credit-list").replaceChildren(
    ...examples.map(({ label, attribution: { clip, source, dataset, homepage, license, changes } }) =>
      make(
        "li",
        {},
        `${sentence(plain(label))}: `,
        link(clip || "a clip", source),
        " from ",
        link(dataset, homepage),
        `, ${license}; ${changes}.`,
      ),
    ),
  );
  $("credits").hidden = !examples.length;
}

// ---------------------------------------------------------------- wiring

/** Offers the answer as a file, without the picture. */
function download() {
  const { picture, ...rest } = page.answer;
  const text = JSON.stringify({ file: page.file, ...rest }, null, 2);
  const href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  make("a", { href, download: `${page.file.replace(/\.[^.]*$/, "")}.json` }).click();
  setTimeout(() => URL.revokeObjectURL(href), 1000);
}

function take(files) {
  if (files.length === 1) ask(files[0].name, () => files[0]);
  else complain(files.length ? "One file at a time, please." : "That is not a file.");
}

function wire() {
  $("longest").textContent = `Stops automatically after ${RECORD_SECONDS} seconds`;
  $("file").addEventListener("change", () => {
    take([...$("file").files]);
    $("file").value = ""; // so that the same file can be chosen again
  });
  $("record").addEventListener("click", record);
  $("download").addEventListener("click", download);
  $("all").addEventListener("click", showAllBars);
  // Without this, a file dropped outside the zone would replace the page.
  const over = (event) => {
    event.preventDefault();
    $("zone").classList.toggle("over", event.type === "dragover");
  };
  addEventListener("dragover", over);
  addEventListener("dragleave", over);
  addEventListener("drop", (event) => {
    over(event);
    take([...event.dataTransfer.files]);
  });
  player.wire();
  timeline.wire();
}

wire();
loadModel();
