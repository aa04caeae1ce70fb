package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/client"
	"github.com/keyturn/keyturn/client/clienttest"
)

// connect is a client of the daemon, closed with the test.
func (d *daemon) connect() *client.Client {
	d.t.Helper()
	c, err := client.New(client.Config{Socket: d.sign})
	must(d.t, err)
	d.t.Cleanup(func() { must(d.t, c.Close()) })
	return c
}

// shape is what a program sees of a token: names and kinds of members.
func shape(doc map[string]any) string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(doc)) {
		kind := fmt.Sprintf("%T", doc[name])
		if list, ok := doc[name].([]any); ok {
			kind = fmt.Sprintf("%d of %T", len(list), list[0])
		}
		out = append(out, name+": "+kind)
	}
	return fmt.Sprint(out)
}

// TestFakeIsLikeTheDaemon: clienttest, with the profiles that a daemon lists,
// answers as that daemon does: tokens of the same shape, the same problem for
// the same request.
func TestFakeIsLikeTheDaemon(t *testing.T) {
	t.Parallel()
	s := strictSite(t).edit("@every 10s", "@every 1h").edit("audit: {", `  - {name: peer, ring: web, allow: [{socket: default}], subject: {from_peer: "uid:{uid}"}, audiences: [a, b], claims: {allow: [tenant]}, ttl: {default: 3s, max: 5s}}
audit: {`)
	real := s.start("web").connect()
	list, err := real.Profiles(t.Context())
	must(t, err)
	var profiles []clienttest.Profile
	for _, p := range list {
		fp := clienttest.Profile{Profile: p}
		if p.Name == "strict" {
			fp.Add = map[string]any{"env": "prod"}
		}
		profiles = append(profiles, fp)
	}
	fake := clienttest.New(t, clienttest.Config{Profiles: profiles})
	again, err := fake.Client().Profiles(t.Context())
	must(t, err)
	if a, b := asJSON(t, list), asJSON(t, again); a != b {
		t.Errorf("profiles\n%s\nof the fake\n%s", a, b)
	}

	web := api.SignRequest{Profile: "web", Subject: "alice", Audience: api.Audience{"demo"}}
	for _, req := range []api.SignRequest{
		web, {Profile: "peer", Audience: api.Audience{"b", "a"}},
		{Profile: "strict", Claims: map[string]json.RawMessage{"tenant": json.RawMessage(`{"a":[1,null]}`)}},
		{Profile: "web", Subject: "bob", Audience: api.Audience{"x", "y"}, Claims: map[string]json.RawMessage{"n": json.RawMessage("1.50"), "list": json.RawMessage(`["x"]`), "o": json.RawMessage(`{}`), "b": json.RawMessage("true")}},
	} {
		a, errA := real.Sign(t.Context(), req)
		b, errB := fake.Client().Sign(t.Context(), req)
		if errA != nil || errB != nil {
			t.Errorf("%+v: %v, fake %v", req, errA, errB)
			continue
		}
		must(t, verifyWith(fake.JWKSURL(), b.Token, fmt.Sprint(claimsOf(b.Token)["aud"].([]any)[0])))
		alike(t, a, b)
	}
	for _, tc := range badRequests() {
		var req api.SignRequest
		if json.Unmarshal([]byte(tc.body), &req) == nil {
			sameProblem(t, tc.name, real, fake.Client(), req)
		}
	}
}

func alike(t *testing.T, a, b *api.SignResponse) {
	t.Helper()
	for n := range 2 {
		if x, y := shape(segment(a.Token, n)), shape(segment(b.Token, n)); x != y {
			t.Errorf("segment %d\n%s\nof the fake\n%s", n, x, y)
		}
	}
	x, y := claimsOf(a.Token), claimsOf(b.Token)
	for _, same := range []string{"sub", "aud", "tenant", "env", "n", "list", "o", "b"} {
		if fmt.Sprint(x[same]) != fmt.Sprint(y[same]) {
			t.Errorf("%s is %v, of the fake %v", same, x[same], y[same])
		}
	}
	for _, c := range []map[string]any{x, y} {
		if c["iat"] != c["nbf"] || c["iat"].(float64) >= float64(time.Now().Unix()) {
			t.Errorf("iat %v, nbf %v", c["iat"], c["nbf"])
		}
	}
	if a.ExpiresIn != b.ExpiresIn || a.ExpiresAt.Location() != b.ExpiresAt.Location() {
		t.Errorf("answers %+v, of the fake %+v", a, b)
	}
}

func sameProblem(t *testing.T, name string, real, fake *client.Client, req api.SignRequest) {
	t.Helper()
	var codes []string
	for _, c := range []*client.Client{real, fake} {
		_, err := c.Sign(t.Context(), req)
		var p *api.Problem
		if err != nil && !errors.As(err, &p) {
			t.Errorf("%s: %v", name, err)
			return
		}
		if p == nil {
			p = &api.Problem{Code: "signed"}
		}
		codes = append(codes, fmt.Sprint(p.Status, " ", p.Code, " ", p.Title))
	}
	if codes[0] != codes[1] {
		t.Errorf("%s: %s, of the fake %s", name, codes[0], codes[1])
	}
}

func asJSON(t *testing.T, list []api.Profile) string {
	t.Helper()
	for i := range list {
		list[i].Issuer, list[i].Ring = "", "" // a fake has one of each, without a name
	}
	doc, err := json.MarshalIndent(list, "", " ")
	must(t, err)
	return string(doc)
}

// TestClientOutlivesTheDaemon: programs that hold a client notice nothing of a
// daemon that is killed and starts again, but time.
func TestClientOutlivesTheDaemon(t *testing.T) {
	t.Parallel()
	s := newSite(t).edit("@every 10s", "@every 1h")
	d := s.start("web")
	c := d.connect()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	done := make(chan error, 8)
	stop := make(chan struct{})
	for range cap(done) {
		go func() {
			for {
				select {
				case <-stop:
					done <- nil
					return
				default:
				}
				if resp, err := c.Sign(ctx, ask("web")); err != nil || resp.Token == "" {
					done <- fmt.Errorf("sign: %w", err)
					return
				}
			}
		}()
	}
	for range 2 {
		time.Sleep(300 * time.Millisecond) // some requests are on their way
		d.kill()
		d = s.start("web")
	}
	d.stop()
	d = s.start("web")
	close(stop)
	for range cap(done) {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	results, err := c.SignBatch(ctx, []api.SignRequest{ask("web"), ask("none")})
	if err != nil || len(results) != 2 || results[0].Err != nil || client.Retryable(results[1].Err) {
		t.Errorf("batch: %+v %v", results, err)
	}
	must(t, verifyWith(d.jwksURL(), results[0].Token, "demo"))
	if set, err := c.JWKS(ctx, "main"); err != nil || len(set) < 100 {
		t.Errorf("key set %s %v", set, err)
	}
}
