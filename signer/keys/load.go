package keys

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/keyturn/keyturn/keyring"
	"github.com/keyturn/keyturn/token"
)

const (
	// loadTimeout bounds one call of the key source.
	loadTimeout = 10 * time.Second
	// retryAfter is how long an unavailable store is left alone, unless a newer
	// manifest shows that it answers again.
	retryAfter = 10 * time.Second
	// missingAfter is how long until a half that is not there, or is not the
	// right one, is looked for again: the rotator has to act, or an operator.
	missingAfter = time.Minute
)

// Run loads private halves as snapshots name them and drops those whose time
// has passed, until the context ends.
func (h *Holder) Run(ctx context.Context) error {
	for {
		timer := time.NewTimer(time.Until(h.load(ctx)))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-h.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// job is one half to load.
type job struct {
	issuer string
	key    keyring.Key
}

// load loads all that is due and says when to look again.
func (h *Holder) load(ctx context.Context) time.Time {
	for ctx.Err() == nil {
		j, next := h.due(time.Now())
		if j == nil {
			return next
		}
		key, err := h.fetch(ctx, j)
		if ctx.Err() == nil {
			h.loaded(j, key, err, time.Now())
		}
	}
	return time.Now()
}

// due is the half to load now: active keys first, since callers wait for them.
// Where there is none, it says when there may be one, or one to drop.
func (h *Holder) due(now time.Time) (*job, time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	next := now.Add(time.Hour)
	at := func(t time.Time) {
		if t.After(now) && t.Before(next) {
			next = t
		}
	}
	var standby *job
	for _, is := range h.issuers {
		if is.snap == nil {
			continue
		}
		if h.expired(is, now) {
			h.rebuild(is, now)
			h.publish()
		}
		for i := range is.snap.Keys {
			k := &is.snap.Keys[i]
			if is.loaded[k.JWK.Kid] != nil {
				if !wanted(k, now) {
					at(k.SignUntil)
				}
				continue
			}
			later := is.failed[k.JWK.Kid].next
			if pause := h.paused[k.Custody]; pause.After(later) {
				later = pause
			}
			switch {
			case !is.wants(k, now):
			case later.After(now):
				at(later)
			case k.State(now) == keyring.Active:
				return &job{is.name, *k}, now
			case standby == nil:
				standby = &job{is.name, *k}
			}
		}
	}
	return standby, next
}

// expired reports whether a half in memory has to go. The caller holds mu.
func (h *Holder) expired(is *issuer, now time.Time) bool {
	for kid := range is.loaded {
		if k := is.snap.Key(kid); k == nil || !mayHold(k, now) {
			return true
		}
	}
	return false
}

// fetch loads a half and checks that it belongs to the key of the manifest.
func (h *Holder) fetch(ctx context.Context, j *job) (*token.Signer, error) {
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	half, err := h.source.Signer(ctx, j.issuer, j.key)
	if err != nil {
		return nil, err
	}
	want, err := j.key.JWK.PublicKey()
	if err != nil {
		return nil, err
	}
	if have, ok := half.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !have.Equal(want) {
		return nil, keyring.ErrMismatch
	}
	key, err := token.NewSigner(string(j.key.JWK.Alg), j.key.JWK.Kid, half)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", keyring.ErrMismatch, err)
	}
	return key, nil
}

// loaded records what became of a job. The key may have been closed meanwhile.
func (h *Holder) loaded(j *job, key *token.Signer, err error, now time.Time) {
	if h.note(j, key, err, now) {
		h.wakeRotator()
	}
}

// note reports whether the half is one more that is damaged.
func (h *Holder) note(j *job, key *token.Signer, err error, now time.Time) (damaged bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	is, kid := h.issuers[j.issuer], j.key.JWK.Kid
	if err == nil {
		delete(is.failed, kid)
		is.loaded[kid] = key
		h.log.Info("loaded private half", "issuer", is.name, "ring", j.key.Ring, "kid", kid)
	} else {
		f, again := is.failed[kid]
		if !again {
			f.since = now
		}
		damaged = isDamaged(err) && !isDamaged(f.err)
		if !again || alarmCode(f.err) != alarmCode(err) {
			h.log.Error("private half not loaded", "issuer", is.name, "ring", j.key.Ring, "kid", kid, "error", err)
		}
		f.err, f.next = err, now.Add(missingAfter)
		if alarmCode(err) == codeUnavailable {
			f.next = now.Add(retryAfter)
			// One cause, one try: the other keys of this store wait as well.
			h.paused[j.key.Custody] = f.next
		}
		is.failed[kid] = f
	}
	h.rebuild(is, now)
	h.publish()
	return damaged
}

// isDamaged reports a half that is not there, or is not the right one. That the
// store is away, or refuses us, says nothing about it.
func isDamaged(err error) bool {
	return errors.Is(err, keyring.ErrNoKey) || errors.Is(err, keyring.ErrMismatch)
}

// Damaged are the kids of an issuer whose private halves were found missing, or
// not to match, when they were last looked for, sorted.
func (h *Holder) Damaged(issuer string) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []string
	if is := h.issuers[issuer]; is != nil {
		for kid, f := range is.failed {
			if isDamaged(f.err) {
				out = append(out, kid)
			}
		}
	}
	slices.Sort(out)
	return out
}

// Retry tries at once what could not be loaded because the store was away: it
// may be back.
func (h *Holder) Retry() {
	h.mu.Lock()
	clear(h.paused)
	for _, is := range h.issuers {
		for kid, f := range is.failed {
			if !isDamaged(f.err) {
				f.next = time.Time{}
				is.failed[kid] = f
			}
		}
	}
	h.mu.Unlock()
	h.tellRun()
}

// alarmCode names why a half could not be loaded.
func alarmCode(err error) string {
	switch {
	case errors.Is(err, keyring.ErrNoKey):
		return "key_missing"
	case errors.Is(err, keyring.ErrMismatch):
		return "key_mismatch"
	case errors.Is(err, keyring.ErrDenied):
		return "key_denied"
	}
	return codeUnavailable
}

const codeUnavailable = "key_unavailable"
