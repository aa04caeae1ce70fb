// Package token makes and reads signed tokens: JWTs (RFC 7519) in the compact
// serialisation of a JWS (RFC 7515 §7.1). It is the only user of golang-jwt and
// imports nothing of keyturn but internal/strictjson.
//
// Signing: golang-jwt's signing methods demand a concrete *rsa.PrivateKey or
// *ecdsa.PrivateKey. keyturn's keys are opaque: a crypto.Signer that never shows
// its private half, perhaps one whose half is in another process. Method gives
// jwt.SigningMethod implementations over that, which golang-jwt's own
// Token.SignedString can use. They are never registered: golang-jwt's global
// table stays as other users of the module expect it.
//
// Sign puts the claims into the token byte by byte as they were given, where
// golang-jwt would encode them anew.
//
// Reading is as strict as the standards allow, since a token that two readers
// understand differently is an attack (RFC 8725):
//
//	Parse      three parts, strict base64url, unique names, kid, no crit, no
//	           algorithm but the ten asymmetric ones
//	ParseSet   a key set: distinct kids, right widths, points on their curves,
//	           one algorithm per key, no private member
//	Verify     the key is chosen by kid, its algorithm is pinned to the key,
//	           then the signature, then typ, iss, aud, exp, nbf and iat
//
// Nothing here reads a clock: the time is passed in.
package token
