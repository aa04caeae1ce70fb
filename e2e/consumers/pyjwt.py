"""Verifies tokens with Debian's PyJWT as a service would.

    pyjwt.py JWKS_URL ISSUER AUDIENCE CLOCK_OFFSET_SECONDS < tokens

One token a line; prints "ok KID ALG" or "bad REASON" for each, in order. The
library has no clock parameter, so the offset is given to the datetime that it reads.
"""
import datetime
import sys

import jwt
import jwt.api_jwt

url, issuer, audience, offset = sys.argv[1:5]


class SkewedDatetime(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return super().now(tz) + datetime.timedelta(seconds=float(offset))


jwt.api_jwt.datetime = SkewedDatetime
client = jwt.PyJWKClient(url)
for line in sys.stdin:
    token = line.strip()
    if not token:
        continue
    try:
        header = jwt.get_unverified_header(token)
        key = client.get_signing_key_from_jwt(token)
        jwt.decode(token, key.key, algorithms=[header["alg"]], audience=audience, issuer=issuer,
                   options={"require": ["exp", "iat", "nbf", "iss", "aud", "jti"]})
        print("ok", header["kid"], header["alg"], flush=True)
    except Exception as err:  # the reason is the output
        print("bad", type(err).__name__, err, flush=True)
