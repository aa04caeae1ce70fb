package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/audit"
	"github.com/keyturn/keyturn/internal/unixsock"
	"github.com/keyturn/keyturn/keyring"
)

// onPlan carries out commands as a rotator does, on one snapshot and in memory:
// the plan is the real one.
func onPlan(s *keyring.Snapshot, change ...func(*keyring.Input)) func(context.Context, keyring.Command, bool) (*keyring.Snapshot, *keyring.Snapshot, error) {
	return func(_ context.Context, cmd keyring.Command, _ bool) (*keyring.Snapshot, *keyring.Snapshot, error) {
		in := keyring.Input{
			Now: time.Now(), WriteID: "w2", File: s.Config, Publishes: true, Command: cmd,
			NextRun: func(string, time.Time) time.Time { return time.Now().Add(time.Hour) },
		}
		for _, c := range change {
			c(&in)
		}
		switch out := keyring.Plan(s, in); {
		case out.Refused != nil:
			return nil, nil, out.Refused
		case out.Next == nil:
			return s, s, nil
		default:
			return s, out.Next, nil
		}
	}
}

// outcome is what an order has to lead to. A reason of * in audited may be
// anything but empty.
type outcome struct {
	status  int
	code    api.Code
	detail  string
	audited []string // event, decision, code, reason
}

// order posts an order as root and checks what came of it.
func (f *fixture) order(t *testing.T, path, body string, want outcome) *api.Problem {
	t.Helper()
	w := f.admin(root(), "POST", path, body)
	if w.Code != want.status {
		t.Fatalf("%d, want %d: %s", w.Code, want.status, w.Body)
	}
	var got []string
	for i, r := range f.audit.records {
		if r.UID != 0 || r.PID != 7 || r.Socket != "admin" || r.Time.IsZero() {
			t.Errorf("audit record %+v lacks who or what", r)
		}
		reason := r.Reason
		if i < len(want.audited) && strings.HasSuffix(want.audited[i], " *") && reason != "" {
			reason = "*"
		}
		got = append(got, fmt.Sprintf("%s %s %s %s", r.Event, r.Decision, r.Code, reason))
	}
	if diff := cmp.Diff(want.audited, got); diff != "" {
		t.Errorf("audit (-want +got):\n%s", diff)
	}
	if want.status == 200 {
		return nil
	}
	p := problem(t, w)
	if p.Code != want.code || !strings.Contains(p.Detail, want.detail) {
		t.Errorf("problem %s %q, want %s with %q", p.Code, p.Detail, want.code, want.detail)
	}
	if (want.status == 503) != (w.Header().Get("Retry-After") != "") {
		t.Errorf("Retry-After %q on %d", w.Header().Get("Retry-After"), w.Code)
	}
	return &p
}

// TestOrdersThatAreNotUnderstood: nothing is asked of the rotator, and the
// refusal is recorded.
func TestOrdersThatAreNotUnderstood(t *testing.T) {
	for _, verb := range []struct{ path, event, extra string }{
		{"/v1/rings/web/rotate", "rotate", ""}, {"/v1/keys/k/revoke", "revoke", `"reason":"x",`},
		{"/v1/rings/web/revoke", "revoke", `"reason":"x",`}, {"/v1/revoke", "revoke", `"reason":"x","kids":["k"],`}, {"/v1/issuers/main/accept", "accept", ""},
	} {
		for name, tc := range map[string]struct {
			body   string
			detail string
			status int
		}{
			"not JSON":          {`{`, "not valid JSON", 400},
			"unknown member":    {`{"kid":"k"}`, `"/kid"`, 400},
			"twice":             {`{"dry_run":true,"dry_run":false}`, "twice", 400},
			"case twin":         {`{"Dry_Run":true}`, "unknown", 400},
			"trailing":          {`{} {}`, "after the JSON", 400},
			"too long a reason": {`{` + strings.Replace(verb.extra, `"reason":"x",`, "", 1) + `"reason":"` + strings.Repeat("x", 1001) + `"}`, "1000 bytes", 400},
			"far too much":      {`{"reason":"` + strings.Repeat("x", 10<<20) + `"}`, "16 KiB", 413},
		} {
			t.Run(verb.path+" "+name, func(t *testing.T) {
				code := map[int]api.Code{400: api.InvalidRequest, 413: api.TooLarge}[tc.status]
				newFixture(t, nil).order(t, verb.path, tc.body, outcome{tc.status, code, tc.detail, []string{fmt.Sprintf("%s deny %s *", verb.event, code)}})
			})
		}
	}
}

// TestOrdersThatFail: each error of the rotator is a problem with a code, and is
// recorded as the outcome of what was asked. A dry run is not recorded.
func TestOrdersThatFail(t *testing.T) {
	safe := time.Date(2026, 3, 1, 12, 0, 0, 400e6, time.FixedZone("", 3600))
	early := &keyring.NotSafeYetError{Ring: "web", SafeAt: safe}
	for name, tc := range map[string]struct {
		err    error
		status int
		code   api.Code
		detail string
	}{
		"not safe yet":       {early, 409, api.NotSafeYet, "before 2026-03-01T11:00:01Z"},
		"a target is behind": {fmt.Errorf("rotate: %w", &keyring.NotSafeYetError{Ring: "web", Waiting: []string{"cdn"}}), 409, api.NotSafeYet, `at "cdn"`},
		"unknown ring":       {fmt.Errorf("x: %w", keyring.ErrUnknownRing), 404, api.NotFound, "no ring web"},
		"unknown key":        {fmt.Errorf("k9: %w; nothing was revoked", keyring.ErrUnknownKey), 404, api.NotFound, "k9: no such key; nothing was revoked"},
		"closed":             {fmt.Errorf("key k: %w", keyring.ErrClosed), 409, api.KeyClosed, "never signs again"},
		"half gone":          {fmt.Errorf("key k: %w", keyring.ErrNoKey), 409, api.KeyMissing, "no private half"},
		"store unavailable":  {keyring.ErrUnavailable, 503, api.Unavailable, "store unavailable"},
		"conflict":           {keyring.ErrConflict, 503, api.Unavailable, "another replica"},
		"anything else":      {errors.New("odd"), 503, api.Unavailable, "odd"},
	} {
		for _, path := range []string{"/v1/rings/web/rotate", "/v1/rings/web/revoke"} {
			t.Run(name+" "+path, func(t *testing.T) {
				f := newFixture(t, func(c *Config) {
					c.Command = func(context.Context, keyring.Command, bool) (*keyring.Snapshot, *keyring.Snapshot, error) {
						return nil, nil, tc.err
					}
				})
				event := path[strings.LastIndex(path, "/")+1:]
				want := outcome{tc.status, tc.code, tc.detail, []string{event + "_asked allow  drill", fmt.Sprintf("%s deny %s *", event, tc.code)}}
				p := f.order(t, path, `{"reason":"drill"}`, want)
				if tc.err == error(early) && (!p.SafeAt.Equal(safe.Truncate(time.Second).Add(time.Second)) || p.SafeAt.Location() != time.UTC) {
					t.Errorf("safe_at %v, want %v rounded up, in UTC", p.SafeAt, safe)
				}
				f.audit.records, want.audited = nil, nil
				f.order(t, path, `{"dry_run":true}`, want)
			})
		}
	}
}

func TestRotate(t *testing.T) {
	now := time.Now()
	proven := snapshot(now)
	proven.Config.Targets = proven.Config.Targets[:1] // without the slow one
	proven.Keys[3].Created, proven.Keys[3].Confirmed["file"] = now.Add(-24*time.Hour), now.Add(-23*time.Hour)
	tail := whole(proven.Lease.Add(time.Minute)) // of k-active, if it is retired now
	for name, tc := range map[string]struct {
		snapshot *keyring.Snapshot
		body     string
		want     api.RotateResponse
		err      *outcome
	}{
		"to the standby":   {proven, ``, api.RotateResponse{Changed: true, ActiveKid: "k-standby", RetiredKid: "k-active", RetiredUntil: tail}, nil},
		"by its name":      {proven, `{"to":"k-standby","reason":"drill"}`, api.RotateResponse{Changed: true, ActiveKid: "k-standby", RetiredKid: "k-active", RetiredUntil: tail}, nil},
		"dry run":          {proven, `{"dry_run":true}`, api.RotateResponse{Changed: true, DryRun: true, ActiveKid: "k-standby", RetiredKid: "k-active", RetiredUntil: tail}, nil},
		"rollback":         {snapshot(now), `{"to":"k-retired"}`, api.RotateResponse{Changed: true, ActiveKid: "k-retired", RetiredKid: "k-active", RetiredUntil: tail, Reinstated: true}, nil},
		"to who signs":     {proven, `{"to":"k-active"}`, api.RotateResponse{ActiveKid: "k-active"}, nil},
		"forced, needless": {proven, `{"force":true}`, api.RotateResponse{Changed: true, ActiveKid: "k-standby", RetiredKid: "k-active", RetiredUntil: tail}, nil},
		"forced": {snapshot(now), `{"force":true}`, api.RotateResponse{
			Changed: true, ActiveKid: "k-standby", RetiredKid: "k-active", RetiredUntil: tail, WaitingFor: []string{"slow"},
			Breaks: []string{`Ring web signs with k-standby before every consumer knows it: those whose copy of the set lacks it refuse its tokens, some of them until k-standby has been read back from slow and 10h16m40s have passed since.`},
		}, nil},
		"too early": {snapshot(now), ``, api.RotateResponse{}, &outcome{409, api.NotSafeYet, `at "slow"`, nil}},
		"unknown":   {proven, `{"to":"k-nobody"}`, api.RotateResponse{}, &outcome{404, api.NotFound, `ring "web" has no key "k-nobody"`, nil}},
		"closed":    {withClosed(proven), `{"to":"k-retired"}`, api.RotateResponse{}, &outcome{409, api.KeyClosed, "never signs again", nil}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, func(c *Config) { c.Command = onPlan(tc.snapshot) })
			w := f.admin(root(), "POST", "/v1/rings/web/rotate", tc.body)
			if tc.err != nil {
				if p := problem(t, w); w.Code != tc.err.status || p.Code != tc.err.code || !strings.Contains(p.Detail, tc.err.detail) {
					t.Errorf("%d %+v, want %+v", w.Code, p, *tc.err)
				}
				return
			}
			var got api.RotateResponse
			if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != 200 {
				t.Fatalf("%d %s: %v", w.Code, w.Body, err)
			}
			tc.want.Ring = "web"
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("answer (-want +got):\n%s", diff)
			}
			var asked []string
			for _, r := range f.audit.records {
				asked = append(asked, fmt.Sprintf("%s %s ring=%s kid=%s force=%v", r.Event, r.Decision, r.Ring, r.Kid, r.Force))
			}
			var req api.RotateRequest
			_ = json.Unmarshal([]byte(tc.body), &req) // no body asks for nothing special
			var want []string
			if !req.DryRun {
				want = []string{
					fmt.Sprintf("rotate_asked allow ring=web kid=%s force=%v", req.To, req.Force),
					fmt.Sprintf("rotate allow ring=web kid=%s force=%v", got.ActiveKid, req.Force),
				}
			}
			if diff := cmp.Diff(want, asked); diff != "" {
				t.Errorf("audit (-want +got):\n%s", diff)
			}
		})
	}
}

// withClosed has its retired key closed.
func withClosed(s *keyring.Snapshot) *keyring.Snapshot {
	s = s.Clone()
	s.Keys[1].Closed = s.Keys[1].Retired.Add(time.Second)
	return s
}

func TestRevokeAsks(t *testing.T) {
	for name, tc := range map[string]struct {
		path, body string
		cmd        keyring.Command
		problem    string
		audited    audit.Record
	}{
		"one":           {"/v1/keys/k-active/revoke", `{"reason":"leaked"}`, keyring.Command{Revoke: []string{"k-active"}}, "", audit.Record{Kid: "k-active", Kids: []string{"k-active"}, Reason: "leaked"}},
		"one, sign now": {"/v1/keys/k-active/revoke", `{"reason":"leaked","sign_now":true}`, keyring.Command{Revoke: []string{"k-active"}, Force: true}, "", audit.Record{Kid: "k-active", Kids: []string{"k-active"}, Reason: "leaked", SignNow: true}},
		"a ring":        {"/v1/rings/web/revoke", `{"reason":"leaked"}`, keyring.Command{RevokeRing: "web"}, "", audit.Record{Ring: "web", Reason: "leaked"}},
		"several":       {"/v1/revoke", `{"reason":"leaked","kids":["k-standby","k-active","k-standby"]}`, keyring.Command{Revoke: []string{"k-active", "k-standby"}}, "", audit.Record{Kids: []string{"k-active", "k-standby"}, Reason: "leaked"}},
		"no kids":       {"/v1/revoke", `{"reason":"leaked"}`, keyring.Command{}, "kids: name", audit.Record{}},
		"an empty kid":  {"/v1/revoke", `{"reason":"leaked","kids":["k",""]}`, keyring.Command{}, "kids: one of them is empty", audit.Record{}},
		"kids twice":    {"/v1/keys/k/revoke", `{"reason":"leaked","kids":["j"]}`, keyring.Command{}, "this path names", audit.Record{}},
		"kids of rings": {"/v1/rings/web/revoke", `{"reason":"leaked","kids":["j"]}`, keyring.Command{}, "this path names", audit.Record{}},
		"no reason":     {"/v1/keys/k/revoke", ``, keyring.Command{}, "reason: say why", audit.Record{}},
		"blank reason":  {"/v1/rings/web/revoke", `{"reason":"  "}`, keyring.Command{}, "reason: say why", audit.Record{}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []keyring.Command
			s := snapshot(time.Now())
			f := newFixture(t, func(c *Config) {
				plan := onPlan(s)
				c.Command = func(ctx context.Context, cmd keyring.Command, dryRun bool) (*keyring.Snapshot, *keyring.Snapshot, error) {
					got = append(got, cmd)
					return plan(ctx, cmd, dryRun)
				}
			})
			if tc.problem != "" {
				f.order(t, tc.path, tc.body, outcome{400, api.InvalidRequest, tc.problem, []string{"revoke deny invalid_request *"}})
				return
			}
			f.order(t, tc.path, tc.body, outcome{status: 200, audited: []string{"revoke_asked allow  leaked", "revoke allow  leaked"}})
			if diff := cmp.Diff([]keyring.Command{tc.cmd}, got); diff != "" {
				t.Errorf("command (-want +got):\n%s", diff)
			}
			asked, done := f.audit.records[0], f.audit.records[1]
			asked = audit.Record{Ring: asked.Ring, Kid: asked.Kid, Kids: asked.Kids, Reason: asked.Reason, SignNow: asked.SignNow}
			if diff := cmp.Diff(tc.audited, asked); diff != "" {
				t.Errorf("asked (-want +got):\n%s", diff)
			}
			if done.Issuer != "main" || len(done.Kids) == 0 || done.SignNow != asked.SignNow || done.Ring != asked.Ring {
				t.Errorf("outcome %+v", done)
			}
			if !strings.Contains(f.log.String(), "keys revoked by an operator") || !strings.Contains(f.log.String(), "reason=leaked") {
				t.Errorf("the log does not tell it: %s", f.log)
			}
		})
	}
}

func TestAcceptAsks(t *testing.T) {
	next := snapshot(time.Now())
	next.Generation = 12
	for name, tc := range map[string]struct {
		body   string
		force  bool
		dryRun bool
		err    error
		want   outcome
	}{
		"done":         {``, false, false, nil, outcome{status: 200, audited: []string{"accept_asked allow  ", "accept allow  "}}},
		"forced":       {`{"force":true,"reason":"lost"}`, true, false, nil, outcome{status: 200, audited: []string{"accept_asked allow  lost", "accept allow  lost"}}},
		"dry run":      {`{"dry_run":true}`, false, true, nil, outcome{status: 200}},
		"not frozen":   {``, false, false, keyring.ErrNotFrozen, outcome{409, api.NotFrozen, "the one that this replica knows", []string{"accept_asked allow  ", "accept deny not_frozen *"}}},
		"a lower mark": {``, false, false, fmt.Errorf("x: %w", &keyring.LowerMarkError{Own: keyring.Mark{Lineage: "l", Generation: 3}, Highest: keyring.Mark{Lineage: "l", Generation: 9}}), outcome{409, api.MarkTooLow, "another one generation 9 of l: run keyturn accept there", []string{"accept_asked allow  ", "accept deny mark_too_low *"}}},
		"no mark":      {``, false, false, &keyring.LowerMarkError{}, outcome{409, api.MarkTooLow, "this replica has no mark", []string{"accept_asked allow  ", "accept deny mark_too_low *"}}},
		"unknown":      {``, false, false, ErrUnknownIssuer, outcome{404, api.NotFound, "no issuer main", []string{"accept_asked allow  ", "accept deny not_found *"}}},
		"unavailable":  {``, false, false, keyring.ErrUnavailable, outcome{503, api.Unavailable, "store unavailable", []string{"accept_asked allow  ", "accept deny unavailable *"}}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, func(c *Config) {
				c.AcceptManifest = func(_ context.Context, issuer string, dryRun, force bool) (keyring.Acceptance, error) {
					if issuer != "main" || dryRun != tc.dryRun || force != tc.force {
						t.Errorf("accept %s, dry run %v, force %v", issuer, dryRun, force)
					}
					return keyring.Acceptance{Next: next, Dropped: []string{"k-lost"}, Destroyed: []string{"k-back"}}, tc.err
				}
			})
			f.order(t, "/v1/issuers/main/accept", tc.body, tc.want)
			if tc.want.status != 200 || tc.dryRun {
				return
			}
			done := f.audit.records[1]
			if diff := cmp.Diff([]string{"k-lost", "k-back"}, done.Kids); diff != "" || done.Issuer != "main" || done.Force != tc.force {
				t.Errorf("outcome %+v", done)
			}
		})
	}
}

// TestOrdersAndTheAuditLog: what cannot be recorded is not done; what has been
// done is told, whether or not its outcome could be recorded.
func TestOrdersAndTheAuditLog(t *testing.T) {
	for _, path := range []string{"/v1/rings/web/rotate", "/v1/keys/k-active/revoke", "/v1/issuers/main/accept"} {
		for failAt, want := range map[int]struct{ code, calls int }{1: {503, 0}, 2: {200, 1}} {
			called := 0
			f := newFixture(t, func(c *Config) {
				c.Command = func(context.Context, keyring.Command, bool) (*keyring.Snapshot, *keyring.Snapshot, error) {
					called++
					s := snapshot(time.Now())
					return s, s, nil
				}
				c.AcceptManifest = func(context.Context, string, bool, bool) (keyring.Acceptance, error) {
					called++
					return keyring.Acceptance{Next: snapshot(time.Now())}, nil
				}
			})
			f.audit.failAt = failAt
			w := f.admin(root(), "POST", path, `{"reason":"drill"}`)
			if w.Code != want.code || called != want.calls {
				t.Errorf("%s: record %d fails: %d and %d calls, want %d and %d: %s", path, failAt, w.Code, called, want.code, want.calls, w.Body)
			}
			if !strings.Contains(f.log.String(), "level=ERROR") {
				t.Errorf("%s: record %d fails: nothing in the log", path, failAt)
			}
		}
	}
}

// TestOrderWhenTheCallerHangsUp: the outcome is recorded although the request is over.
func TestOrderWhenTheCallerHangsUp(t *testing.T) {
	ctx, hangUp := context.WithCancel(t.Context())
	f := newFixture(t, func(c *Config) {
		c.Command = func(ctx context.Context, _ keyring.Command, _ bool) (*keyring.Snapshot, *keyring.Snapshot, error) {
			hangUp()
			if err := ctx.Err(); err != nil {
				t.Errorf("the order ends with the request: %v", err)
			}
			s := snapshot(time.Now())
			return s, s, nil
		}
	})
	inner := f.AdminHandler()
	ask(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		inner.ServeHTTP(w, r.WithContext(unixsock.WithPeer(ctx, root())))
	}), nil, "POST", "/v1/rings/web/rotate", "")
	var got []string
	for _, r := range f.audit.records {
		got = append(got, fmt.Sprint(r.Event, " ", r.Decision, " ", r.Code))
	}
	if diff := cmp.Diff([]string{"rotate_asked allow ", "rotate allow "}, got); diff != "" {
		t.Errorf("audit (-want +got):\n%s", diff)
	}
}

// TestOrderWithAnOptionalAuditLog is carried out while the log is broken, as
// tokens are signed.
func TestOrderWithAnOptionalAuditLog(t *testing.T) {
	for _, optional := range []bool{false, true} {
		called := 0
		f := newFixture(t, func(c *Config) {
			c.AuditOptional = optional
			c.Command = func(context.Context, keyring.Command, bool) (*keyring.Snapshot, *keyring.Snapshot, error) {
				called++
				s := snapshot(time.Now())
				return s, s, nil
			}
		})
		f.audit.failAt = 1
		f.admin(root(), "POST", "/v1/rings/web/revoke", `{"reason":"drill"}`)
		if (called == 1) != optional {
			t.Errorf("optional %v: %d calls", optional, called)
		}
	}
}
