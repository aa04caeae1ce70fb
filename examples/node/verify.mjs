// Verifies a token as a service does, with Node's standard library, and prints
// who it is about. In production npm's jose does this and keeps the key set; its
// createRemoteJWKSet reads it again at an unknown kid, and seldom (cooldownDuration).
//
//   node verify.mjs JWKS_URL ISSUER AUDIENCE < token
import { createPublicKey, verify } from "node:crypto";
import { readFileSync } from "node:fs";

const [jwksURL, issuer, audience] = process.argv.slice(2);
const leeway = 30; // seconds

function part(text) {
  return JSON.parse(Buffer.from(text, "base64url").toString());
}

function refuse(why) {
  console.error("refused:", why);
  process.exit(1);
}

const parts = readFileSync(0, "utf8").trim().split(".");
if (parts.length !== 3) refuse("this is no token");
const header = part(parts[0]);

const { keys } = await (await fetch(jwksURL)).json();
const jwk = keys.find((k) => k.kid === header.kid && k.use === "sig");
if (!jwk) refuse("no key of that kid: read the set again, keys turn over");
// The algorithm is the key's; the token only has to agree (RFC 8725 §3.1).
if (jwk.alg !== header.alg) refuse("the key is for another algorithm");

const key = createPublicKey({ key: jwk, format: "jwk" });
const how = { ES: { key, dsaEncoding: "ieee-p1363" }, RS: key, Ed: key }[jwk.alg.slice(0, 2)] ?? refuse(`${jwk.alg} is not expected here`);
const digest = jwk.alg === "EdDSA" ? null : `sha${jwk.alg.slice(2)}`;
if (!verify(digest, Buffer.from(`${parts[0]}.${parts[1]}`), how, Buffer.from(parts[2], "base64url"))) refuse("the signature is wrong");

const claims = part(parts[1]);
const now = Date.now() / 1000;
if (claims.iss !== issuer) refuse("another issuer");
if (![claims.aud].flat().includes(audience)) refuse("it is for somebody else");
if (!(now < claims.exp + leeway)) refuse("it has expired");
if (!(claims.nbf - leeway <= now)) refuse("it is not good yet");
console.log(claims.sub, header.kid);
