// Package client is what a Go program imports to get tokens from keyturn's
// daemon over its sign socket. It imports package api, internal/strictjson and
// golang.org/x/oauth2, whose interface OAuth2 implements.
//
//	c, err := client.New(client.Config{})       // KEYTURN_SOCKET, or the standard path
//	resp, err := c.Sign(ctx, api.SignRequest{Profile: "orders", Subject: "user-7"})
//
// Who needs the same token again and again, to call a service, keeps a Source,
// which signs a new one ahead of the old one's end:
//
//	src := c.Source(api.SignRequest{Profile: "orders", Audience: api.Audience{"api://orders"}})
//	hc := &http.Client{Transport: &client.Transport{Source: src}}
//
//	          Client ── Sign, SignBatch, Profiles, JWKS
//	             ▲
//	           Source ── Token(ctx), one request at a time, whoever asks
//	             ▲
//	Transport (net/http) · OAuth2 (x/oauth2) · GRPC (grpc's PerRPCCredentials)
//
// A Client keeps connections and speaks HTTP/1.1 over them by itself: one write
// and one read a token, and no goroutine for a connection. What net/http's
// transport does beyond that (proxies, TLS, redirects, compression) has no
// meaning on a Unix socket, and costs as much as a signature.
//
// Asking again is safe: a token that was signed and lost on its way harms
// nobody. So a Client repeats by itself what waiting mends (429 and 503, a
// connection that broke, a daemon that is being restarted) for as long as the
// context allows.
//
// Package clienttest is a daemon for the tests of programs that use this one.
package client
