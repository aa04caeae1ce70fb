// Gets a token from keyturn with Node's standard library, and prints it.
//
//   KEYTURN_SOCKET=/tmp/kt/sign.sock node sign.mjs PROFILE [SUBJECT [AUDIENCE]]
import { Agent, request } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import { pathToFileURL } from "node:url";

const socketPath = process.env.KEYTURN_SOCKET ?? "/run/keyturn/sign.sock";
// Connections are kept for the next token.
const agent = new Agent({ keepAlive: true, maxSockets: 16 });

// What keyturn refuses: decide on code, show the message to people.
export class Refused extends Error {
  constructor(problem) {
    super(`${problem.code}: ${problem.detail ?? ""}`);
    this.code = problem.code;
  }
}

function once(body) {
  return new Promise((resolve, reject) => {
    const options = { socketPath, agent, path: "/v1/sign", method: "POST", headers: { "Content-Type": "application/json" }, timeout: 10_000 };
    const req = request(options, (res) => {
      const chunks = [];
      res.on("data", (chunk) => chunks.push(chunk));
      res.on("error", reject);
      res.on("end", () => resolve({ status: res.statusCode, retryAfter: Number(res.headers["retry-after"] ?? 1), text: Buffer.concat(chunks).toString() }));
    });
    req.on("timeout", () => req.destroy(new Error("the daemon does not answer")));
    req.on("error", reject);
    req.end(JSON.stringify(body));
  });
}

// sign returns {token, kid, expires_at, expires_in}. It asks again while the
// daemon is away or busy: asking twice is safe.
export async function sign(body, patience = 30_000) {
  const giveUp = Date.now() + patience;
  for (;;) {
    let pause = 200;
    let failure;
    try {
      const { status, retryAfter, text } = await once(body);
      if (status === 200) return JSON.parse(text);
      failure = new Refused(JSON.parse(text));
      if (status !== 429 && status !== 503) throw failure;
      pause = retryAfter * 1000;
    } catch (err) {
      if (err instanceof Refused || err instanceof SyntaxError) throw err;
      failure = err;
    }
    if (Date.now() + pause > giveUp) throw failure;
    await sleep(pause);
  }
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const [profile, subject, audience] = process.argv.slice(2);
  try {
    console.log((await sign({ profile, subject, audience })).token);
  } catch (err) {
    console.error(`sign.mjs: ${err.message}`);
    process.exitCode = 1;
  }
  agent.destroy();
}
