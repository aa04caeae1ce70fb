package admin

import (
	"slices"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keyring"
)

// TestKeysInOrderOfLife: the next key first, then the one that signs, then the
// past, the newest first.
func TestKeysInOrderOfLife(t *testing.T) {
	now := time.Now()
	f := newFixture(t, nil)
	s := snapshot(now)
	older := s.Keys[1]
	older.JWK.Kid, older.Created = "k-older", older.Created.Add(-time.Hour)
	s.Keys = append(s.Keys, older)
	slices.Reverse(s.Keys)
	f.Accept("main", s)
	var got []string
	for _, k := range f.issuers(now).Issuers[0].Rings[0].Keys {
		got = append(got, k.Kid)
	}
	if want := []string{"k-standby", "k-active", "k-retired", "k-older"}; !slices.Equal(got, want) {
		t.Errorf("keys %v, want %v", got, want)
	}
}

// TestStandbyIsSafeOnceProven: safe_at shows only where nothing is waited for.
func TestStandbyIsSafeOnceProven(t *testing.T) {
	now := time.Now()
	s := snapshot(now)
	k := &s.Keys[3]
	if got := key(s, k, now); !got.SafeAt.IsZero() || !slices.Equal(got.WaitingFor, []string{"slow"}) {
		t.Errorf("unproven: %+v", got)
	}
	k.Confirmed["slow"] = now
	if got := key(s, k, now); !got.SafeAt.Equal(now.Add(s.Lead(now))) || len(got.WaitingFor) != 0 {
		t.Errorf("proven: %+v", got)
	}
	k.Revoked = now
	if got := key(s, k, now); got.State != string(keyring.Revoked) || !got.WithdrawnAt.Equal(now) || !got.SafeAt.IsZero() {
		t.Errorf("revoked: %+v", got)
	}
}

func TestSecondsRoundUp(t *testing.T) {
	for d, want := range map[time.Duration]int64{0: 0, 1: 1, time.Second: 1, time.Second + 1: 2, time.Hour: 3600} {
		if got := seconds(d); got != want {
			t.Errorf("seconds(%v) = %d, want %d", d, got, want)
		}
	}
}
