package keyring

import (
	"slices"
	"testing"
	"time"
)

// TestStates holds the table of design.md §3 against each set of facts.
func TestStates(t *testing.T) {
	never := time.Time{}
	key := func(activated, retired, signUntil, closed, destroyed, revoked time.Time) Key {
		return Key{Activated: activated, Retired: retired, SignUntil: signUntil, Closed: closed, Destroyed: destroyed, Revoked: revoked, Tail: seconds(50)}
	}
	for _, tc := range []struct {
		name            string
		key             Key
		now             int
		want            State
		inSet           bool
		standby, active bool
	}{
		{"standby", key(never, never, never, never, never, never), 500, Standby, true, true, false},
		{"active", key(at(10), never, never, never, never, never), 500, Active, true, false, true},
		{"retired, within its lease", key(at(10), at(20), at(100), never, never, never), 50, Retired, true, false, false},
		{"retired, its lease over", key(at(10), at(20), at(100), never, never, never), 120, Retired, true, false, false},
		{"retired, its tail over, not closed", key(at(10), at(20), at(100), never, never, never), 1000, Retired, true, false, false},
		{"retired standby", key(never, at(20), at(20), never, never, never), 30, Retired, true, false, false},
		{"closed, within its tail", key(at(10), at(20), at(100), at(102), never, never), 149, Closed, true, false, false},
		{"closed, destroyed, within its tail", key(at(10), at(20), at(100), at(102), at(103), never), 149, Closed, true, false, false},
		{"withdrawn", key(at(10), at(20), at(100), at(102), at(103), never), 150, Withdrawn, false, false, false},
		{"withdrawn, not destroyed", key(at(10), at(20), at(100), at(102), never, never), 150, Withdrawn, false, false, false},
		{"revoked standby", key(never, never, never, never, never, at(5)), 6, Revoked, false, false, false},
		{"revoked active", key(at(10), never, never, never, never, at(15)), 16, Revoked, false, false, false},
		{"revoked and retired", key(at(10), at(15), at(15), never, never, at(15)), 16, Revoked, false, false, false},
		{"revoked, closed, long ago", key(at(10), at(15), at(15), at(15), at(16), at(15)), 1000, Revoked, false, false, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			k := tc.key
			if got := k.State(at(tc.now)); got != tc.want {
				t.Errorf("state %q, want %q", got, tc.want)
			}
			if k.InSet(at(tc.now)) != tc.inSet || k.isStandby() != tc.standby || k.isActive() != tc.active {
				t.Errorf("in set %v, standby %v, active %v", k.InSet(at(tc.now)), k.isStandby(), k.isActive())
			}
		})
	}
}

func TestSignUntilAndWithdrawAt(t *testing.T) {
	s := &Snapshot{Lease: at(300)}
	standby := Key{}
	active := Key{Activated: at(10)}
	retired := Key{Activated: at(10), Retired: at(20), SignUntil: at(100), Tail: seconds(50)}
	for _, tc := range []struct {
		name               string
		key                *Key
		until, withdrawnAt time.Time
	}{
		{"standby", &standby, time.Time{}, time.Time{}},
		{"active", &active, at(300), time.Time{}},
		{"retired", &retired, at(100), at(150)},
	} {
		if got := s.SignUntil(tc.key); !got.Equal(tc.until) {
			t.Errorf("%s: sign_until %v, want %v", tc.name, got, tc.until)
		}
		if got := tc.key.WithdrawAt(); !got.Equal(tc.withdrawnAt) {
			t.Errorf("%s: withdrawn at %v, want %v", tc.name, got, tc.withdrawnAt)
		}
	}
}

// TestSafeAt: the lead runs from the confirmation by the slowest required target.
func TestSafeAt(t *testing.T) {
	s := &Snapshot{Config: bucketConfig()} // lead 15m10s = 910s
	s.Config.Targets = []Target{
		{Name: "cdn", Kind: TargetConfirm, Required: true}, {Name: "mirror", Kind: TargetBucket}, {Name: "origin", Kind: TargetBucket, Required: true},
	}
	confirmed := func(times map[string]int) Key {
		k := Key{Created: at(100), Confirmed: map[string]time.Time{}}
		for name, n := range times {
			k.Confirmed[name] = at(n)
		}
		return k
	}
	for _, tc := range []struct {
		name     string
		key      Key
		founding bool
		want     time.Time
		waiting  []string
	}{
		{"nothing read back", confirmed(nil), false, time.Time{}, []string{"cdn", "origin"}},
		{"one of two", confirmed(map[string]int{"cdn": 110, "mirror": 120}), false, time.Time{}, []string{"origin"}},
		{"both, the slowest counts", confirmed(map[string]int{"cdn": 200, "origin": 150}), false, at(200 + 910), nil},
		{"an optional one does not", confirmed(map[string]int{"cdn": 200, "origin": 150, "mirror": 900}), false, at(200 + 910), nil},
		{"never before it was created", confirmed(map[string]int{"cdn": 50, "origin": 50}), false, at(100 + 910), nil},
		{"founding, not read back", confirmed(nil), true, time.Time{}, []string{"cdn", "origin"}},
		{"founding needs no lead", confirmed(map[string]int{"cdn": 200, "origin": 150}), true, at(200), nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.key.Founding = tc.founding
			if got := s.SafeAt(&tc.key, at(0)); !got.Equal(tc.want) {
				t.Errorf("safe at %v, want %v", got, tc.want)
			}
			if got := s.WaitingFor(&tc.key); !slices.Equal(got, tc.waiting) {
				t.Errorf("waiting for %q, want %q", got, tc.waiting)
			}
		})
	}
}

func TestServeUntil(t *testing.T) {
	s := &Snapshot{Config: bucketConfig(), Lease: at(1000)} // tail 1h1m10s = 3670s
	if got, want := s.ServeUntil(), at(4670); !got.Equal(want) {
		t.Errorf("without keys: %v, want %v", got, want)
	}
	s.Keys = []Key{{Activated: at(0), Tail: seconds(5000)}}
	if got, want := s.ServeUntil(), at(6000); !got.Equal(want) {
		t.Errorf("a key with a longer tail: %v, want %v", got, want)
	}
	s.Keys[0].Retired, s.Keys[0].SignUntil = at(10), at(900)
	if got, want := s.ServeUntil(), at(6000); !got.Equal(want) {
		t.Errorf("the same, retired: %v, want %v", got, want)
	}
	s.Keys[0].Closed = at(950)
	if got, want := s.ServeUntil(), at(5900); !got.Equal(want) {
		t.Errorf("the same, closed: until its last token has expired: %v, want %v", got, want)
	}
	s.Keys[0].SignUntil = at(-5000)
	if got, want := s.ServeUntil(), at(4670); !got.Equal(want) {
		t.Errorf("the same, long withdrawn: %v, want %v", got, want)
	}
}

func TestFindingKeys(t *testing.T) {
	s := decoded(t, golden(t))
	web, ok := s.Config.Ring("web")
	if !ok || web.Algorithm != ES256 {
		t.Errorf("ring web: %+v, %v", web, ok)
	}
	if _, ok := s.Config.Ring("nobody"); ok {
		t.Error("a ring that does not exist was found")
	}
	if k := s.Active("web"); k == nil || k.JWK.Kid != s.Keys[2].JWK.Kid {
		t.Errorf("active: %+v", k)
	}
	if k := s.Standby("web"); k == nil || k.JWK.Kid != s.Keys[3].JWK.Kid {
		t.Errorf("standby: %+v", k)
	}
	if k := s.Key(s.Keys[1].JWK.Kid); k != &s.Keys[1] {
		t.Error("a key was not found by its kid")
	}
	if s.Active("nobody") != nil || s.Standby("nobody") != nil || s.Key("nobody") != nil {
		t.Error("something was found that is not there")
	}
}

// TestStandbyOfTwo: while the algorithm changes, the new one is next as soon
// as it was read back.
func TestStandbyOfTwo(t *testing.T) {
	s := &Snapshot{Config: bucketConfig()}
	s.Config.Rings[0].Algorithm = ES256
	older := Key{JWK: testJWK(t, EdDSA, 0, 1), Ring: "web", Custody: "vaultkv", Confirmed: map[string]time.Time{"bucket": at(1)}}
	newer := Key{JWK: testJWK(t, ES256, 0, 2), Ring: "web", Custody: "vaultkv"}
	s.Keys = []Key{older, newer}
	if k := s.Standby("web"); k.JWK.Alg != EdDSA {
		t.Error("the new one is next before it was read back")
	}
	s.Keys[1].Confirmed = map[string]time.Time{"bucket": at(2)}
	if k := s.Standby("web"); k.JWK.Alg != ES256 {
		t.Error("the old one is still next")
	}
	s.Keys[0], s.Keys[1] = s.Keys[1], s.Keys[0]
	if k := s.Standby("web"); k.JWK.Alg != ES256 {
		t.Error("the order of the manifest decides")
	}
}

func TestCloneIsDeep(t *testing.T) {
	s := decoded(t, golden(t))
	c := s.Clone()
	c.Frozen.Reason, c.Floor.Span = "x", 1
	c.Config.Targets[0].Name, c.Config.Rings[0].Name = "x", "x"
	c.Keys[0].Ring, c.Adopted[0].JWK.Kid, c.Orphans[0].Kid = "x", "x", "x"
	c.Keys[3].Confirmed["endpoint"] = epoch
	delete(c.Keys[0].Confirmed, "endpoint")
	again, err := Encode(s)
	if err != nil {
		t.Fatal(err)
	}
	if string(again) != string(golden(t)) {
		t.Errorf("changing a clone changed the original: %s", again)
	}
}

// TestExpected: a rotation that is due before its standby can be proven is
// expected when it is, and told as overdue after that only.
func TestExpected(t *testing.T) {
	s := &Snapshot{Config: bucketConfig()} // lead 910s
	if got := s.Expected("web", at(500), at(500)); !got.Equal(at(500)) {
		t.Errorf("without a standby: %v", got)
	}
	s.Keys = []Key{{JWK: testJWK(t, EdDSA, 0, 1), Ring: "web", Custody: "vaultkv", Created: at(100)}}
	for due, want := range map[int]int{500: 1010, 1009: 1010, 1010: 1010, 2000: 2000} {
		if got := s.Expected("web", at(due), at(due)); !got.Equal(at(want)) {
			t.Errorf("due at %v: expected at %v, want %v", at(due), got, at(want))
		}
	}

	l := newLife(t, bucketConfig())
	soon := func(in *Input) {
		in.NextRun = func(_ string, after time.Time) time.Time { return after.Add(time.Minute) }
	}
	l.turn(soon)
	l.publish()
	l.turn(soon) // active, and due in a minute; its standby is created now
	l.wait(930 * time.Second)
	if l.turn(soon); len(l.out.Alarms) != 0 {
		t.Errorf("a young ring waits its lead: alarms %v", l.out.Alarms)
	}
	l.wait(time.Millisecond)
	if l.turn(soon); !slices.Equal(codes(l.out), []string{"rotation_overdue"}) {
		t.Errorf("its target is behind: alarms %v", codes(l.out))
	}
}
