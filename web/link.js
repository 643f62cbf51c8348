// The WebSocket to the server: connects, notices that it is gone, connects again. Knows no event but their envelope.

const WAITS_S = [0.5, 1, 2, 4, 8]; // before the first, second, ... attempt in a row
const FINAL_CODES = new Set([1002, 1003, 1007, 1008, 1009]); // trying again would end the same way
const STUCK_BYTES = 512 * 1024; // eight seconds of audio that the network did not take: the server is gone
const GAVE_UP = 4000;
const LOST = 1006;
const FULL = "The server has no room for another conversation just now. Close one in another tab, or wait.";

/**
 * One lasting connection.
 *
 * States: `off`; `connecting`; `online`; `waiting` (with a reason, and `resumes` if the session may still be there);
 * `refused` (with a reason; `needsKey` if an API key would help).
 */
export class Link {
  /**
   * @param {{onState: (state: object) => void, onEvent: (event: object) => void,
   *   onServer: (model: object) => void}} handlers
   */
  constructor({ onState, onEvent, onServer }) {
    this.onState = onState;
    this.onEvent = onEvent;
    this.onServer = onServer;
    this.key = "";
    this.socket = null;
    this.timer = 0;
    this.attempts = 0;
    this.token = null; // with which the session can be resumed
    this.received = 0; // messages of the session
    this.state = { name: "off" };
    addEventListener("online", () => this.state.name === "waiting" && this.connect());
  }

  get online() {
    return this.state.name === "online";
  }

  open() {
    if (this.state.name !== "off" && this.state.name !== "refused") return;
    this.attempts = 0;
    this.connect();
  }

  close() {
    clearTimeout(this.timer);
    this.token = null;
    const { socket } = this;
    this.socket = null;
    socket?.close(1000);
    this.enter({ name: "off" });
  }

  /** Sends one client event. @returns {boolean} false when there is no connection to send it on */
  send(event) {
    if (!this.online) return false;
    if (this.socket.bufferedAmount > STUCK_BYTES) {
      const { socket } = this;
      this.lost({ code: GAVE_UP }); // a dead line never reports its end
      socket.close();
      return false;
    }
    this.socket.send(JSON.stringify(event));
    return true;
  }

  async connect() {
    clearTimeout(this.timer);
    this.enter({ name: "connecting" });
    const { refusal, trouble } = await this.ask();
    if (this.state.name !== "connecting") return; // closed meanwhile
    if (refusal) this.enter({ name: "refused", ...refusal });
    else if (trouble) this.wait(trouble);
    else this.dial();
  }

  /** Asks over HTTP first: a failed WebSocket does not tell a page why it failed. */
  async ask() {
    try {
      const headers = this.key ? { Authorization: `Bearer ${this.key}` } : {};
      const reply = await fetch("/v1/models", { headers, cache: "no-store" });
      const body = await reply.json();
      if (reply.status === 401) {
        const reason = this.key ? "The server does not accept this API key." : "This server asks for an API key.";
        return { refusal: { reason, needsKey: true } };
      }
      if (reply.status === 403) return { refusal: { reason: body.error.message } };
      if (!reply.ok) return { trouble: `The server answers with an error (${reply.status}).` };
      if (body.data.length === 0) return { trouble: "The model is still loading." };
      this.onServer(body.data[0]);
      return {};
    } catch {
      return { trouble: "The server cannot be reached. Is it running, and are you online?" };
    }
  }

  dial() {
    const query = this.token ? `resume=${this.token}&received=${this.received}` : "resumable=true";
    const url = `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/v1/realtime?${query}`;
    if (!this.token) this.received = 0;
    const protocols = this.key ? ["realtime", `openai-insecure-api-key.${this.key}`] : ["realtime"];
    const socket = new WebSocket(url, protocols);
    this.socket = socket;
    socket.onmessage = ({ data }) => this.socket === socket && this.receive(JSON.parse(data));
    socket.onclose = (event) => this.socket === socket && this.lost(event);
  }

  receive(event) {
    if (!this.online) {
      this.attempts = 0;
      this.enter({ name: "online" });
    }
    if (event.type === "session.resumable") this.token = event.token;
    if (event.type !== "session.resumed") this.received += 1;
    this.onEvent(event);
  }

  lost({ code, reason }) {
    const known = this.online;
    this.socket = null;
    if (!known && this.token) {
      this.token = null; // the session is gone: a new one, at once
      this.dial();
    } else if (FINAL_CODES.has(code)) {
      this.enter({ name: "refused", reason: `The server ended the session: ${reason || `code ${code}`}.` });
    } else {
      this.wait(known ? "The connection was lost." : FULL, known ? code : undefined);
    }
  }

  /** A server that closes has ended the session; a line that breaks has not. */
  wait(reason, code = LOST) {
    if (code !== LOST && code !== GAVE_UP) this.token = null;
    const seconds = WAITS_S[Math.min(this.attempts, WAITS_S.length - 1)] * (1 + Math.random() / 4);
    this.attempts += 1;
    this.timer = setTimeout(() => this.connect(), seconds * 1000);
    this.enter({ name: "waiting", reason, resumes: this.token !== null });
  }

  enter(state) {
    this.state = state;
    this.onState(state);
  }
}
