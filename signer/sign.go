package signer

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/audit"
	"github.com/keyturn/keyturn/signer/gate"
	"github.com/keyturn/keyturn/signer/profile"
	"github.com/keyturn/keyturn/signer/request"
)

// forbidden is byte for byte the same whether or not the profile exists.
func forbidden() *api.Problem {
	return api.NewProblem(api.Forbidden, "this caller may not use this profile through this socket; GET /v1/profiles lists those that it may use")
}

// decide judges one request and signs it. Nobody may hear of it before commit.
func (s *Signer) decide(c profile.Caller, e *request.Entry, dk *desk, d *decision) {
	if d.prob = e.Problem; d.prob == nil {
		d.prob = s.issue(c, &e.Request, dk, d)
	}
}

// issue fills the decision as far as it gets.
func (s *Signer) issue(c profile.Caller, req *request.Request, dk *desk, d *decision) *api.Problem {
	d.rec.Profile = request.Clip(req.Profile)
	if req.Profile == "" {
		return request.Invalid("profile is missing; GET /v1/profiles lists those that this caller may use")
	}
	p := (*s.profiles.Load())[req.Profile]
	switch {
	case p == nil:
		d.rec.Reason = "there is no such profile"
		return forbidden()
	case !c.Known:
		d.rec.Reason = "the kernel did not say who the caller is"
		return forbidden()
	case !p.Allows(c):
		d.rec.Reason = "no allow item of the profile matches the caller"
		return forbidden()
	}
	d.rec.Issuer, d.rec.Ring = p.Issuer, p.Ring
	d.out.Profile, d.out.Issuer, d.out.Ring = p.Name, p.Issuer, p.Ring
	if ok, retry := s.limiter.Allow(p.Name, c.Peer.UID, gate.Rate{PerSecond: float64(p.Rate.PerSecond), Burst: p.Rate.Burst}, d.began); !ok {
		return tooOften(p, retry)
	}
	want, prob := p.Judge(req, c.Peer)
	if prob != nil {
		return prob
	}
	d.rec.Subject, d.rec.Audiences = want.Subject, want.Audience
	if d.rec.Reason, prob = p.Meets(c, &want); prob != nil {
		return prob
	}
	d.view = s.keys.Views()[p.Issuer]
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
	// Writing may have taken long, a stopped process (SIGSTOP) wakes anywhere, and
	// a revocation comes when it comes.
	now := time.Now()
	released := s.keys.At(now)
	for i := range list {
		d := &list[i]
		switch {
		case kept != nil:
			d.prob = kept
		case d.prob == nil:
			if prob := released.Lapsed(d.view, d.rec.Kid, d.until); prob != nil {
				d.prob = s.deny(ctx, d.rec, prob)
			}
		}
		if d.prob != nil {
			d.out.Code = d.prob.Code
		}
		d.out.Took = now.Sub(d.began)
		s.observe(d.out)
	}
}

// sign makes the token.
func (s *Signer) sign(p *profile.Profile, want *profile.Grant, dk *desk, d *decision) *api.Problem {
	now, v := time.Now(), d.view // the one reading for iat, exp and the lease
	key, prob := v.Pick(p.Ring, now)
	if prob != nil {
		return prob
	}
	if want.TTL > key.MaxTTL {
		return api.NewProblem(api.TTLTooLong, fmt.Sprintf("the token would live %d seconds: the key in force allows %d at most, whatever the profile says; ask for less", want.TTL, key.MaxTTL))
	}
	d.out.Algorithm = key.Alg()
	early := now.Add(-time.Duration(v.Snapshot.Config.ClockSkew)).Unix()
	claims := payload{
		Issuer: v.Snapshot.Config.URL, Subject: want.Subject, Audience: want.Audience,
		ExpiresAt: now.Unix() + want.TTL, IssuedAt: early, NotBefore: early, ID: dk.newID(),
	}
	doc, err := claims.encode(dk.claims[:0], want.Claims)
	if err != nil {
		s.log.Error("claims not encoded", "profile", p.Name, "error", err)
		return api.NewProblem(api.Unavailable, "the token could not be made; see the daemon's log")
	}
	dk.claims = doc
	from := len(dk.tokens)
	if dk.tokens, err = key.AppendSigned(dk.tokens, p.Type, doc); err != nil {
		s.log.Error("signature failed", "issuer", v.Issuer, "ring", p.Ring, "kid", key.Kid(), "error", err)
		return api.NewProblem(api.Unavailable, "the signature failed; see the daemon's log")
	}
	d.token, d.ttl, d.until = dk.tokens[from:], want.TTL, key.Until
	d.rec.Time, d.rec.Decision = now, audit.Allow
	d.rec.Kid, d.rec.JTI, d.rec.ExpiresAt = key.Kid(), claims.ID, time.Unix(claims.ExpiresAt, 0).UTC()
	if s.audit != nil {
		digest := sha256.Sum256(doc)
		d.rec.ClaimsSHA256 = hex.EncodeToString(digest[:])
	}
	return nil
}
