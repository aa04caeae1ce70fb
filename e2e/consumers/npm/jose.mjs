// Verifies tokens with npm jose as a service would: the key set is fetched
// from its URL, algorithm and kid are matched by the library.
//
//   node jose.mjs JWKS_URL ISSUER AUDIENCE CLOCK_OFFSET_SECONDS < tokens
//
// One token a line; prints "ok KID ALG" or "bad REASON" for each, in order.
import { createRemoteJWKSet, jwtVerify } from "jose";
import { createInterface } from "node:readline";

const [url, issuer, audience, offset] = process.argv.slice(2);
const keys = createRemoteJWKSet(new URL(url), { cooldownDuration: 0 });

for await (const line of createInterface({ input: process.stdin })) {
  const token = line.trim();
  if (!token) continue;
  try {
    const { protectedHeader } = await jwtVerify(token, keys, {
      issuer,
      audience,
      currentDate: new Date(Date.now() + Number(offset) * 1000),
    });
    console.log("ok", protectedHeader.kid, protectedHeader.alg);
  } catch (err) {
    console.log("bad", err.code ?? "", err.message);
  }
}
