package custodytest

import (
	"crypto/rand"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn/keyring"
)

// WriteID is a new random one.
func WriteID() string { return rand.Text() }

func save(t *testing.T, c Custody, next *keyring.Snapshot, version int) int {
	t.Helper()
	got, err := c.Save(ctx(t), next.Config.Name, next, version)
	if err != nil {
		t.Fatalf("save: %v", err)
	}
	if got <= version {
		t.Fatalf("version %d was followed by %d", version, got)
	}
	return got
}

func wantStored(t *testing.T, c Custody, want *keyring.Snapshot, version int) {
	t.Helper()
	got, v, err := c.Load(ctx(t), want.Config.Name)
	if err != nil {
		t.Fatalf("load: %v", err)
	}
	if v != version {
		t.Errorf("loaded version %d, saved %d", v, version)
	}
	if diff := cmp.Diff(encode(t, want), encode(t, got)); diff != "" {
		t.Errorf("the manifest changed (-saved +loaded):\n%s", diff)
	}
}

func encode(t *testing.T, s *keyring.Snapshot) string {
	t.Helper()
	doc, err := keyring.Encode(s)
	if err != nil {
		t.Fatal(err)
	}
	return string(doc)
}

func noManifest(t *testing.T, open Open) {
	c := open(t, nil)
	s, version, err := c.Load(ctx(t), issuer)
	if !errors.Is(err, keyring.ErrNoManifest) || s != nil || version != 0 {
		t.Errorf("Load = %v, %d, %v; want ErrNoManifest", s, version, err)
	}
	if kids, err := c.List(ctx(t), issuer); err != nil || len(kids) > 0 {
		t.Errorf("List = %q, %v", kids, err)
	}
}

func saveAndLoad(t *testing.T, open Open) {
	c := open(t, nil)
	first := Sample(issuer, 1)
	v1 := save(t, c, first, 0)
	wantStored(t, c, first, v1)

	jwk, handle, err := c.Create(ctx(t), issuer, keyring.ES256, 0)
	if err != nil {
		t.Fatal(err)
	}
	second := Sample(issuer, 2, KeyOf(jwk, handle))
	v2 := save(t, c, second, v1)
	wantStored(t, c, second, v2)
}

func staleVersions(t *testing.T, open Open) {
	c := open(t, nil)
	conflict := func(what string, generation uint64, version int) {
		t.Helper()
		if v, err := c.Save(ctx(t), issuer, Sample(issuer, generation), version); !errors.Is(err, keyring.ErrConflict) {
			t.Errorf("%s: Save = %d, %v; want ErrConflict", what, v, err)
		}
	}
	conflict("an update of nothing", 3, 2)
	v1 := save(t, c, Sample(issuer, 1), 0)
	conflict("a second creation", 2, 0)
	second := Sample(issuer, 2)
	v2 := save(t, c, second, v1)
	conflict("a stale version", 3, v1)
	conflict("a version to come", 3, v2+1)
	wantStored(t, c, second, v2)
}

// Of many who save on one version exactly one wins, and what is stored is the
// winner's.
func concurrentManifests(t *testing.T, open Open) {
	c := open(t, nil)
	version := 0
	for generation := uint64(1); generation <= 3; generation++ {
		const racers = 8
		var all [racers]*keyring.Snapshot
		var versions [racers]int
		var errs [racers]error
		var wg sync.WaitGroup
		for i := range racers {
			all[i] = Sample(issuer, generation)
			wg.Go(func() { versions[i], errs[i] = c.Save(ctx(t), issuer, all[i], version) })
		}
		wg.Wait()
		winner := -1
		for i, err := range errs {
			switch {
			case err == nil && winner >= 0:
				t.Fatalf("generation %d: two winners", generation)
			case err == nil:
				winner = i
			case !errors.Is(err, keyring.ErrConflict):
				t.Errorf("generation %d: a loser got %v, want ErrConflict", generation, err)
			}
		}
		if winner < 0 {
			t.Fatalf("generation %d: nobody won: %v", generation, errs)
		}
		version = versions[winner]
		wantStored(t, c, all[winner], version)
	}
}

// What a newer keyturn added survives the rewrite of an older one, numbers
// and order as they were.
func unknownMembers(t *testing.T, open Open) {
	c := open(t, nil)
	doc := encode(t, Sample(issuer, 1))
	const more = `"future":{"z":1.0,"a":12345678901234567890,"s":"\u003c"}`
	doc = strings.TrimSuffix(doc, "}") + "," + more + "}"
	doc = strings.Replace(doc, `"config":{`, `"config":{"future_config":[1.50],`, 1)
	s, err := keyring.Decode([]byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	v := save(t, c, s, 0)
	loaded, _, err := c.Load(ctx(t), issuer)
	if err != nil {
		t.Fatal(err)
	}
	next := loaded.Clone()
	next.Generation, next.WriteID = 2, WriteID()
	v = save(t, c, next, v)
	wantStored(t, c, next, v)
	got, _, err := c.Load(ctx(t), issuer)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{more, `"future_config":[1.50]`} {
		if again := encode(t, got); !strings.Contains(again, want) {
			t.Errorf("%s was lost from %s", want, again)
		}
	}
}

func neverWritten(t *testing.T, open Open) {
	c := open(t, nil)
	newer := Sample(issuer, 1)
	newer.Schema++
	if _, err := c.Save(ctx(t), issuer, newer, 0); !errors.Is(err, keyring.ErrSchema) {
		t.Errorf("a newer schema: %v, want ErrSchema", err)
	}
	anonymous := Sample(issuer, 1)
	anonymous.WriteID = ""
	if _, err := c.Save(ctx(t), issuer, anonymous, 0); err == nil {
		t.Error("a manifest without write_id was saved: nobody could find out whether it was")
	}
	if _, err := c.Save(ctx(t), issuer, Sample("other", 1), 0); err == nil {
		t.Error("the manifest of another issuer was saved")
	}
	if _, _, err := c.Load(ctx(t), issuer); !errors.Is(err, keyring.ErrNoManifest) {
		t.Errorf("Load = %v, want ErrNoManifest", err)
	}
}

func names(t *testing.T, open Open) {
	c := open(t, nil)
	for _, name := range []string{"", "..", "../main", "a/b", "+", "*", "a b"} {
		if _, _, err := c.Load(ctx(t), name); err == nil || errors.Is(err, keyring.ErrNoManifest) {
			t.Errorf("Load(%q) = %v", name, err)
		}
		if _, err := c.Save(ctx(t), name, Sample(name, 1), 0); err == nil {
			t.Errorf("Save(%q) took it", name)
		}
		if _, _, err := c.Create(ctx(t), name, keyring.ES256, 0); err == nil {
			t.Errorf("Create(%q) took it", name)
		}
		if _, err := c.List(ctx(t), name); err == nil {
			t.Errorf("List(%q) took it", name)
		}
		if err := c.Destroy(ctx(t), issuer, name); err == nil {
			t.Errorf("Destroy of handle %q took it", name)
		}
	}
}
