"""Verifies a token as a service does, with PyJWT, and prints who it is about.

    python3 verify.py JWKS_URL ISSUER AUDIENCE < token
"""
import sys

import jwt

jwks_url, issuer, audience = sys.argv[1:4]
# One client for the life of the service: it keeps the key set for five minutes,
# and reads it again when a token names a key that it does not know. Each such
# token makes it do so, and anybody can send those: a service that strangers reach
# limits them in front of this, or keeps the set itself as examples/go does.
keys = jwt.PyJWKClient(jwks_url)

token = sys.stdin.read().strip()
key = keys.get_signing_key_from_jwt(token)
claims = jwt.decode(
    token,
    key.key,
    algorithms=["ES256"],  # those of your issuer's rings, never the token's own word for it
    issuer=issuer,
    audience=audience,
    leeway=30,
    options={"require": ["exp", "iat", "iss", "aud"]},
)
print(claims["sub"], key.key_id)
