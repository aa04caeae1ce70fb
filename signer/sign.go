package signer

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/audit"
	"github.com/keyturn/keyturn/internal/strictjson"
	"github.com/keyturn/keyturn/internal/unixsock"
)

// caller is who asks, through which socket.
type caller struct {
	socket string
	peer   unixsock.Peer
	known  bool // the kernel said who it is
}

// forbidden is byte for byte the same whether or not the profile exists.
func forbidden() *api.Problem {
	return api.NewProblem(api.Forbidden, "this caller may not use this profile through this socket; GET /v1/profiles lists those that it may use")
}

func invalid(format string, args ...any) *api.Problem {
	return api.NewProblem(api.InvalidRequest, fmt.Sprintf(format, args...))
}

// clip bounds what came from outside before it is repeated anywhere.
func clip(s string) string {
	const most = 64
	if len(s) <= most {
		return s
	}
	cut := most
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}

// answer judges one request and signs it. Exactly one of its results is set.
// Every decision is in the audit log before anybody hears of it.
func (s *Signer) answer(ctx context.Context, c caller, body []byte) (*api.SignResponse, *api.Problem) {
	began := time.Now()
	rec, out := c.record(), Outcome{}
	resp, prob := s.issue(ctx, c, body, &rec, &out)
	if prob != nil {
		return nil, s.deny(ctx, rec, out, prob, began)
	}
	out.Took = time.Since(began)
	s.observe(out)
	return resp, nil
}

// issue fills the record as far as it gets.
func (s *Signer) issue(ctx context.Context, c caller, body []byte, rec *audit.Record, out *Outcome) (*api.SignResponse, *api.Problem) {
	var req api.SignRequest
	if err := strictjson.Unmarshal(body, &req); err != nil {
		return nil, invalid("%s", clipDetail(err))
	}
	rec.Profile = clip(req.Profile)
	if req.Profile == "" {
		return nil, invalid("profile is missing; GET /v1/profiles lists those that this caller may use")
	}
	st := s.state.Load()
	p := st.profiles[req.Profile]
	switch {
	case p == nil:
		rec.Reason = "there is no such profile"
		return nil, forbidden()
	case !c.known:
		rec.Reason = "the kernel did not say who the caller is"
		return nil, forbidden()
	case !p.allows(c):
		rec.Reason = "no allow item of the profile matches the caller"
		return nil, forbidden()
	}
	rec.Issuer, rec.Ring = p.issuer, p.Ring
	out.Profile, out.Issuer, out.Ring = p.Name, p.issuer, p.Ring
	want, prob := p.judge(&req, c.peer)
	if prob != nil {
		return nil, prob
	}
	rec.Subject, rec.Audiences = want.subject, want.audience
	return s.sign(ctx, st.issuers[p.issuer], p, want, rec, out)
}

// clipDetail bounds an error of the JSON decoder, which repeats names.
func clipDetail(err error) string {
	const most = 300
	if text := err.Error(); len(text) > most {
		return text[:most] + "…"
	}
	return err.Error()
}

// sign makes the token and releases it: nothing after it may fail.
func (s *Signer) sign(ctx context.Context, v *view, p *profile, want request, rec *audit.Record, out *Outcome) (*api.SignResponse, *api.Problem) {
	now := time.Now() // the one reading for iat, exp and the lease
	key, prob := v.pick(p.Ring, now)
	if prob != nil {
		return nil, prob
	}
	if want.ttl > key.maxTTL {
		return nil, api.NewProblem(api.TTLTooLong, fmt.Sprintf("the token would live %d seconds: the key in force allows %d at most, whatever the profile says; ask for less", want.ttl, key.maxTTL))
	}
	out.Algorithm = key.Alg()
	skew := time.Duration(v.snap.Config.ClockSkew)
	claims := payload{
		Issuer: v.snap.Config.URL, Subject: want.subject, Audience: want.audience,
		ExpiresAt: now.Unix() + want.ttl, IssuedAt: now.Add(-skew).Unix(), NotBefore: now.Add(-skew).Unix(),
		ID: newID(),
	}
	doc, err := claims.encode(want.claims)
	if err != nil {
		s.log.Error("claims not encoded", "profile", p.Name, "error", err)
		return nil, api.NewProblem(api.Unavailable, "the token could not be made; see the daemon's log")
	}
	raw, err := key.Sign(p.Type, doc)
	if err != nil {
		s.log.Error("signature failed", "issuer", v.name, "ring", p.Ring, "kid", key.Kid(), "error", err)
		return nil, api.NewProblem(api.Unavailable, "the signature failed; see the daemon's log")
	}
	expires := time.Unix(claims.ExpiresAt, 0).UTC()
	digest := sha256.Sum256(doc)
	rec.Kid, rec.JTI, rec.ExpiresAt, rec.ClaimsSHA256 = key.Kid(), claims.ID, expires, hex.EncodeToString(digest[:])
	// A crash after each step: signed, nothing is known of the token and nobody
	// has it; recorded, the log allows a token that nobody has; released, all is said.
	if prob := v.lapsed(key.until, time.Now()); prob != nil {
		return nil, prob
	}
	rec.Time, rec.Decision = now, audit.Allow
	if prob := s.record(ctx, *rec); prob != nil {
		return nil, prob
	}
	// Writing may have taken long, and a stopped process (SIGSTOP) wakes anywhere.
	if prob := v.lapsed(key.until, time.Now()); prob != nil {
		return nil, prob
	}
	return &api.SignResponse{Token: raw, Kid: key.Kid(), ExpiresAt: expires, ExpiresIn: want.ttl}, nil
}

// newID is a jti: 128 random bits.
func newID() string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails: crypto/rand ends the process first
	return base64.RawURLEncoding.EncodeToString(id[:])
}

// pick is the key that signs for a ring now.
func (v *view) pick(ring string, now time.Time) (signingKey, *api.Problem) {
	if v == nil || v.snap == nil {
		return signingKey{}, api.NewProblem(api.Unavailable, "the issuer's manifest has not been read yet; /readyz/signer says why")
	}
	r := v.rings[ring]
	if r.active == nil {
		return signingKey{}, api.NewProblem(api.NoActiveKey, v.whyNoKey(ring, now))
	}
	if len(r.keys) == 0 {
		return signingKey{}, api.NewProblem(api.Unavailable, fmt.Sprintf("the active key %q of ring %q is not loaded yet; /readyz/signer says why", r.active.JWK.Kid, ring))
	}
	var prob *api.Problem
	for _, key := range r.keys {
		if prob = v.lapsed(key.until, now); prob == nil {
			return key, nil
		}
	}
	return signingKey{}, prob
}

func (v *view) whyNoKey(ring string, now time.Time) string {
	if _, ok := v.snap.Config.Ring(ring); !ok {
		return fmt.Sprintf("ring %q is not in the configuration in force (revision %d of issuer %q)", ring, v.snap.Config.Revision, v.name)
	}
	next := v.snap.Standby(ring)
	if next == nil {
		return fmt.Sprintf("ring %q has no key yet; the rotator makes one", ring)
	}
	if waiting := v.snap.WaitingFor(next); len(waiting) > 0 {
		return fmt.Sprintf("the first key of ring %q has not been read back at %q yet", ring, waiting)
	}
	return fmt.Sprintf("the next key of ring %q may sign from %s on, when every consumer knows it", ring, stamp(v.snap.SafeAt(next, now).Add(time.Second-time.Nanosecond))) // rounded up
}

// lapsed says why a key with this lease may not sign at a time.
func (v *view) lapsed(until, now time.Time) *api.Problem {
	late := v.late()
	switch {
	case v.snap.MaySign(until, now, late):
		return nil
	case !now.Before(until):
		return api.NewProblem(api.SigningLapsed, fmt.Sprintf("the signing lease of issuer %q ended at %s; it is renewed as soon as the manifest can be written again", v.name, stamp(until)))
	case !late.Before(until):
		return api.NewProblem(api.SigningLapsed, fmt.Sprintf("clock fault: the signing lease of issuer %q ended at %s, and it is %s by this host's boot clock, which nobody can set back; check NTP on this host",
			v.name, stamp(until), stamp(late)))
	default:
		return api.NewProblem(api.SigningLapsed, fmt.Sprintf("clock fault: the signing lease of issuer %q ends at %s, and a replica with a right clock would not have set it so far beyond %s, the time here; check NTP on this host and on those that write the manifest",
			v.name, stamp(v.snap.Lease), stamp(now)))
	}
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// auditTime bounds the wait for a log that hangs.
const auditTime = 5 * time.Second

// record keeps a decision. The problem that it returns is what the caller
// gets instead of the decision: without a record nothing is released. The
// decision stands whether or not the caller is still there: one that hangs up
// must not keep it out of the log, nor make the log look broken.
func (s *Signer) record(ctx context.Context, rec audit.Record) *api.Problem {
	if s.audit == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), auditTime)
	defer cancel()
	err := s.audit.Append(ctx, rec)
	if err == nil {
		if s.auditBroken.Load() != nil && s.auditBroken.Swap(nil) != nil {
			s.log.Info("audit log is written again")
		}
		return nil
	}
	if now := time.Now(); s.auditBroken.CompareAndSwap(nil, &now) { // one line for one cause
		s.log.Error("audit log not written", "required", !s.auditOptional, "error", err)
	}
	if s.auditOptional {
		return nil
	}
	return api.NewProblem(api.Unavailable, "the audit log cannot be written, so nothing is signed; see the daemon's log")
}
