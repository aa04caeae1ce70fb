package signer

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/audit"
	"github.com/keyturn/keyturn/internal/unixsock"
	"github.com/keyturn/keyturn/keyring"
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

// decide judges one request and signs it. Nobody may hear of it before commit.
func (s *Signer) decide(c caller, e *entry, dk *desk, d *decision) {
	if d.prob = e.prob; d.prob == nil {
		d.prob = s.issue(c, &e.asked, dk, d)
	}
}

// issue fills the decision as far as it gets.
func (s *Signer) issue(c caller, req *asked, dk *desk, d *decision) *api.Problem {
	d.rec.Profile = clip(req.profile)
	if req.profile == "" {
		return invalid("profile is missing; GET /v1/profiles lists those that this caller may use")
	}
	st := s.state.Load()
	p := st.profiles[req.profile]
	switch {
	case p == nil:
		d.rec.Reason = "there is no such profile"
		return forbidden()
	case !c.known:
		d.rec.Reason = "the kernel did not say who the caller is"
		return forbidden()
	case !p.allows(c):
		d.rec.Reason = "no allow item of the profile matches the caller"
		return forbidden()
	}
	d.rec.Issuer, d.rec.Ring = p.issuer, p.Ring
	d.out.Profile, d.out.Issuer, d.out.Ring = p.Name, p.issuer, p.Ring
	if ok, retry := s.limiter.Allow(p.Name, c.peer.UID, p.rate, d.began); !ok {
		return p.tooOften(retry)
	}
	want, prob := p.judge(req, c.peer)
	if prob != nil {
		return prob
	}
	d.rec.Subject, d.rec.Audiences = want.subject, want.audience
	if prob := p.meets(c, &want, &d.rec); prob != nil {
		return prob
	}
	d.view = st.issuers[p.issuer]
	return s.sign(p, &want, dk, d)
}

// commit records decisions, in order, and then says of each whether it may be
// released: prob is nil then. Every decision is in the audit log before anybody
// hears of it; those that are given together are written together.
//
// A crash before leaves tokens that were signed, that nobody has and nothing
// tells of; a crash after it, records that allow tokens which nobody has.
func (s *Signer) commit(ctx context.Context, dk *desk) {
	list, kept := dk.decisions, s.keep(ctx, dk)
	// Writing may have taken long, and a stopped process (SIGSTOP) wakes anywhere.
	released := moment{now: time.Now()}
	for i := range list {
		d := &list[i]
		switch {
		case kept != nil:
			d.prob = kept
		case d.prob == nil:
			if prob := released.lapsed(d); prob != nil {
				d.prob = s.deny(ctx, d.rec, prob)
			}
		}
		if d.prob != nil {
			d.out.Code = d.prob.Code
		}
		d.out.Took = released.now.Sub(d.began)
		s.observe(d.out)
	}
}

// moment is one reading of the clocks for several decisions.
type moment struct {
	now  time.Time
	view *view
	late time.Time // by the clocks of that view's issuer
}

// lapsed says why a token may not be released at this moment.
func (m *moment) lapsed(d *decision) *api.Problem {
	if m.view != d.view {
		m.view, m.late = d.view, d.view.late()
	}
	return d.view.lapsed(d.until, m.now, m.late)
}

// keep completes the records and writes them.
func (s *Signer) keep(ctx context.Context, dk *desk) *api.Problem {
	if s.audit == nil {
		return nil
	}
	list := dk.decisions
	// The last look at the leases before the log says that they were kept.
	written := moment{now: time.Now()}
	for i := range list {
		d := &list[i]
		if d.prob == nil {
			d.prob = written.lapsed(d)
		}
		if d.prob != nil {
			d.rec = denied(d.rec, d.prob)
		}
	}
	dk.records = dk.records[:0]
	for i := range list {
		dk.records = append(dk.records, list[i].rec)
	}
	return s.record(ctx, dk.records...)
}

// clipDetail bounds an error of the JSON decoder, which repeats names.
func clipDetail(err error) string {
	const most = 300
	if text := err.Error(); len(text) > most {
		return text[:most] + "…"
	}
	return err.Error()
}

// sign makes the token.
func (s *Signer) sign(p *profile, want *request, dk *desk, d *decision) *api.Problem {
	now, v := time.Now(), d.view // the one reading for iat, exp and the lease
	key, prob := v.pick(p.Ring, now)
	if prob != nil {
		return prob
	}
	if want.ttl > key.maxTTL {
		return api.NewProblem(api.TTLTooLong, fmt.Sprintf("the token would live %d seconds: the key in force allows %d at most, whatever the profile says; ask for less", want.ttl, key.maxTTL))
	}
	d.out.Algorithm = key.Alg()
	early := now.Add(-time.Duration(v.snap.Config.ClockSkew)).Unix()
	claims := payload{
		Issuer: v.snap.Config.URL, Subject: want.subject, Audience: want.audience,
		ExpiresAt: now.Unix() + want.ttl, IssuedAt: early, NotBefore: early, ID: dk.newID(),
	}
	doc, err := claims.encode(dk.claims[:0], want.claims)
	if err != nil {
		s.log.Error("claims not encoded", "profile", p.Name, "error", err)
		return api.NewProblem(api.Unavailable, "the token could not be made; see the daemon's log")
	}
	dk.claims = doc
	from := len(dk.tokens)
	if dk.tokens, err = key.AppendSigned(dk.tokens, p.Type, doc); err != nil {
		s.log.Error("signature failed", "issuer", v.name, "ring", p.Ring, "kid", key.Kid(), "error", err)
		return api.NewProblem(api.Unavailable, "the signature failed; see the daemon's log")
	}
	d.token, d.ttl, d.until = dk.tokens[from:], want.ttl, key.until
	d.rec.Time, d.rec.Decision = now, audit.Allow
	d.rec.Kid, d.rec.JTI, d.rec.ExpiresAt = key.Kid(), claims.ID, time.Unix(claims.ExpiresAt, 0).UTC()
	if s.audit != nil {
		digest := sha256.Sum256(doc)
		d.rec.ClaimsSHA256 = hex.EncodeToString(digest[:])
	}
	return nil
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
	late := v.late()
	for _, key := range r.keys {
		if prob = v.lapsed(key.until, now, late); prob == nil {
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
		return fmt.Sprintf("the first key of ring %q has not been read back at %s yet", ring, keyring.Quoted(waiting))
	}
	return fmt.Sprintf("the next key of ring %q may sign from %s on, when every consumer knows it", ring, stamp(v.snap.SafeAt(next, now).Add(time.Second-time.Nanosecond))) // rounded up
}

// lapsed says why a key with this lease may not sign at a time.
func (v *view) lapsed(until, now, late time.Time) *api.Problem {
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

// record keeps decisions, all or none. The problem that it returns is what the caller
// gets instead of the decision: without a record nothing is released. The
// decision stands whether or not the caller is still there: one that hangs up
// must not keep it out of the log, nor make the log look broken.
func (s *Signer) record(ctx context.Context, records ...audit.Record) *api.Problem {
	if s.audit == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), auditTime)
	defer cancel()
	err := s.audit.AppendAll(ctx, records)
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
