package publisher_test

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/keyring"
)

// adopting is a snapshot whose file target takes over a foreign set.
func adopting(generation uint64, until time.Time, active keyring.JWK, adopted ...keyring.JWK) *keyring.Snapshot {
	s := snapshot(time.Now(), generation, active)
	s.Config.Targets = []keyring.Target{{Name: "file", Kind: keyring.TargetFile, Required: true, AdoptUntil: until}}
	for _, k := range adopted {
		s.Adopted = append(s.Adopted, keyring.Adopted{JWK: k, Until: until})
	}
	return s
}

// foreignSet is a document that somebody else wrote: keys with members that
// keyturn does not have, and without some that it has.
func foreignSet(t *testing.T, keys ...map[string]any) string {
	t.Helper()
	doc, err := json.MarshalIndent(map[string]any{"keys": keys}, "", "\t")
	must(t, err)
	return string(doc)
}

// members are those of a key, changed: nil takes one away.
func members(t *testing.T, k keyring.JWK, change map[string]any) map[string]any {
	t.Helper()
	doc, err := json.Marshal(k)
	must(t, err)
	var out map[string]any
	must(t, json.Unmarshal(doc, &out))
	for name, value := range change {
		if out[name] = value; value == nil {
			delete(out, name)
		}
	}
	return out
}

// A foreign set stays, and is told, until the manifest names all of it; then
// it is replaced by a set that has its keys, until their date.
func TestForeignSetIsTakenOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "jwks.json")
		one, two, ours := newKey(t, keyring.ES256), newKey(t, keyring.EdDSA), newKey(t, keyring.ES256)
		one.Kid, two.Kid = "2024-a", "2024-b"
		theirs := foreignSet(t,
			members(t, one, map[string]any{"x5c": []string{"AA=="}, "alg": nil, "use": nil, "key_ops": []string{"verify"}}),
			members(t, two, nil), members(t, two, nil))
		write(t, path, theirs)
		until := time.Now().Add(24 * time.Hour)
		h := startFile(t, path)

		h.accept(adopting(1, until, ours))
		h.wantCodes(t, "not_published!")
		if got := h.Foreign("main")["file"]; !slices.Equal(got, []keyring.JWK{one, two}) {
			t.Errorf("foreign keys %+v, want %+v", got, []keyring.JWK{one, two})
		}
		woken := h.events.woken.Load()
		write(t, path, foreignSet(t, members(t, one, nil)))
		rest(interval)
		if got := h.Foreign("main")["file"]; !slices.Equal(got, []keyring.JWK{one}) || h.events.woken.Load() == woken {
			t.Errorf("they changed their set: foreign keys %+v, woken %d times", got, h.events.woken.Load()-woken)
		}
		write(t, path, theirs)
		h.accept(adopting(2, until, ours, one))
		rest(2 * interval)
		if got := string(mustRead(t, path)); got != theirs {
			t.Errorf("replaced before the manifest names every key:\n%s", got)
		}
		if h.events.drifted.Load() > 0 || h.events.bad.Load() > 0 {
			t.Errorf("counted: drift %d, failures %d", h.events.drifted.Load(), h.events.bad.Load())
		}
		h.accept(adopting(3, until, ours, one, two))
		wantSet(t, path, ours, one, two)
		h.wantCodes(t)
		h.wantConfirmed(t, "file", ours, one, two)
		if got := h.Foreign("main"); len(got) > 0 {
			t.Errorf("still foreign: %+v", got)
		}
		for g := uint64(4); time.Now().Before(until.Add(-2 * time.Minute)); g++ {
			h.accept(adopting(g, until, ours, one, two))
			wantSet(t, path, ours, one, two)
			rest(50 * time.Minute)
		}
		rest(time.Until(until) + time.Second)
		wantSet(t, path, ours)
	})
}

// What cannot be carried is refused by name, with the way to mend it; nothing
// is touched and nothing of it is reported for adoption.
func TestForeignKeysThatCannotBeCarried(t *testing.T) {
	good := newKey(t, keyring.ES256)
	rsa := map[string]any{
		"kty": "RSA", "kid": "r", "alg": "RS256", "e": "AQAB",
		"n": strings.Repeat("_", 341) + "w", // 2048 bits of a modulus
	}
	with := func(k map[string]any, change map[string]any) map[string]any {
		out := map[string]any{}
		for name, value := range k {
			out[name] = value
		}
		for name, value := range change {
			if out[name] = value; value == nil {
				delete(out, name)
			}
		}
		return out
	}
	ec := members(t, good, map[string]any{"kid": "k"})
	secret := "c2VjcmV0LXNlY3JldC1zZWNyZXQ"
	for name, tc := range map[string]struct {
		set  string
		want []string
	}{
		"no kid":            {foreignSet(t, with(ec, map[string]any{"kid": nil})), []string{"the key at place 1 has no kid", "give it one"}},
		"RSA without alg":   {foreignSet(t, with(rsa, map[string]any{"alg": nil})), []string{`key "r" has no alg`, `write "alg": "RS256"`}},
		"another kty":       {foreignSet(t, map[string]any{"kty": "AKP", "kid": "k", "pub": "AA"}), []string{`key "k" is of kty "AKP"`}},
		"another curve":     {foreignSet(t, with(ec, map[string]any{"crv": "secp256k1", "alg": nil})), []string{`key "k" is on curve "secp256k1"`}},
		"another algorithm": {foreignSet(t, with(rsa, map[string]any{"alg": "RSA-OAEP"})), []string{`key "r" has alg "RSA-OAEP"`}},
		"alg of another":    {foreignSet(t, with(ec, map[string]any{"alg": "ES384"})), []string{`key "k" cannot be read`, "ES384"}},
		"short modulus":     {foreignSet(t, with(rsa, map[string]any{"n": strings.Repeat("_", 172)})), []string{`key "r" cannot be read (rsa_bits`}},
		"no point":          {foreignSet(t, with(ec, map[string]any{"x": "AA"})), []string{`key "k" cannot be read`}},
		"for encryption":    {foreignSet(t, with(ec, map[string]any{"use": "enc"})), []string{`key "k" is not for signatures`}},
		"wrapping only":     {foreignSet(t, with(ec, map[string]any{"use": nil, "key_ops": []string{"wrapKey"}})), []string{`key "k" is not for signatures`}},
		"a private half":    {foreignSet(t, with(ec, map[string]any{"d": secret})), []string{`key "k" holds its private half (d)`, "trust its tokens no more"}},
		"a shared secret":   {foreignSet(t, map[string]any{"kty": "oct", "kid": "k", "k": secret}), []string{`key "k" holds its private half (k)`}},
		"two of one kid":    {foreignSet(t, ec, members(t, newKey(t, keyring.ES256), map[string]any{"kid": "k"})), []string{`key "k" stands there twice`}},
		"a kid like a page": {foreignSet(t, with(ec, map[string]any{"kid": strings.Repeat("k", 257)})), []string{"longer than 256 bytes"}},
		"a kid of lines":    {foreignSet(t, with(ec, map[string]any{"kid": "a\nb"})), []string{"not printable"}},
		"a kid of ours":     {foreignSet(t, members(t, newKey(t, keyring.ES256), map[string]any{"kid": good.Kid})), []string{"another key of the kid"}},
		"several faults":    {foreignSet(t, with(rsa, map[string]any{"alg": nil}), with(ec, map[string]any{"use": "enc"})), []string{`key "r" has no alg`, `key "k" is not for`}},
		"too many":          {foreignSet(t, members(t, newKey(t, keyring.ES256), nil), members(t, newKey(t, keyring.ES256), nil)), []string{"max_keys is 2"}},
		"no set":            {"<html>", []string{"it is no key set"}},
		"an empty file":     {"", []string{"it is no key set"}},
		"no keys":           {`{"key":[]}`, []string{`it has no member "keys"`}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir := t.TempDir()
				path := filepath.Join(dir, "jwks.json")
				write(t, path, tc.set)
				before := look(t, dir)
				h := startFile(t, path)
				s := adopting(1, time.Now().Add(time.Hour), good)
				s.Config.MaxKeys = 2
				h.accept(s)
				rest(2 * interval)
				h.wantCodes(t, "publish_refused!")
				said := h.Alarms()[0].Message
				for _, want := range append(tc.want, "cannot be taken over") {
					if !strings.Contains(said, want) {
						t.Errorf("said %q, want %q", said, want)
					}
				}
				if strings.Contains(said, secret) || strings.Contains(said, "\n") {
					t.Errorf("said %q", said)
				}
				if after := look(t, dir); before != after || len(h.Foreign("main")) > 0 {
					t.Errorf("foreign %+v, touched:\n%s\nwas\n%s", h.Foreign("main"), after, before)
				}
			})
		})
	}
}

// A view must not take a key away that its consumers had.
func TestForeignKeyOutsideTheView(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "jwks.json")
		theirs := newKey(t, keyring.EdDSA)
		write(t, path, string(setOf(t, theirs)))
		h := startFile(t, path)
		s := adopting(1, time.Now().Add(time.Hour), newKey(t, keyring.ES256), theirs)
		s.Config.Targets[0].View = keyring.ViewKubernetes
		h.accept(s)
		h.wantCodes(t, "publish_refused!")
		if said := h.Alarms()[0].Message; !strings.Contains(said, `the view "kubernetes" leaves out key`) {
			t.Errorf("said %q", said)
		}
		wantSet(t, path, theirs)
	})
}

// After the date nothing more is taken over; what the manifest still names has
// been, also on a host that comes late. A key that was revoked is named, too.
func TestForeignSetAfterTheDate(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(s *keyring.Snapshot, theirs keyring.JWK)
		want   string // "" where it is replaced, without their key
	}{
		"not named":        {func(*keyring.Snapshot, keyring.JWK) {}, "adopt_until has passed (2"},
		"named and over":   {func(s *keyring.Snapshot, k keyring.JWK) { s.Adopted = []keyring.Adopted{{JWK: k, Until: time.Now()}} }, ""},
		"no date any more": {func(s *keyring.Snapshot, k keyring.JWK) { s.Config.Targets[0].AdoptUntil = time.Time{} }, "take them over with adopt_until"},
		"revoked": {func(s *keyring.Snapshot, k keyring.JWK) {
			s.Adopted = []keyring.Adopted{{JWK: k, Until: time.Now().Add(time.Hour), Revoked: time.Now()}}
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "jwks.json")
				theirs, ours := newKey(t, keyring.ES256), newKey(t, keyring.ES256)
				write(t, path, string(setOf(t, theirs)))
				h := startFile(t, path)
				s := adopting(1, time.Now(), ours)
				tc.change(s, theirs)
				h.accept(s)
				if tc.want == "" {
					h.wantCodes(t)
					wantSet(t, path, ours)
					return
				}
				h.wantCodes(t, "publish_refused!")
				if said := h.Alarms()[0].Message; !strings.Contains(said, tc.want) {
					t.Errorf("said %q, want %q", said, tc.want)
				}
				wantSet(t, path, theirs)
			})
		})
	}
}

// The set of another issuer, or of another lineage, of keyturn's own is as
// foreign as any: its generation, which may be higher, counts for nothing.
func TestAnotherLineageIsTakenOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "jwks.json")
		theirs, ours := newKey(t, keyring.ES256), newKey(t, keyring.ES256)
		old := startFile(t, path)
		s := snapshot(time.Now(), 900, theirs)
		s.Lineage = "lineage-old"
		old.accept(s)
		old.stop()

		h := startFile(t, path)
		h.accept(adopting(1, time.Now().Add(time.Hour), ours))
		h.wantCodes(t, "not_published!")
		if got := h.Foreign("main")["file"]; !slices.Equal(got, []keyring.JWK{theirs}) {
			t.Errorf("foreign keys %+v", got)
		}
		h.accept(adopting(2, time.Now().Add(time.Hour), ours, theirs))
		wantSet(t, path, ours, theirs)
		h.wantCodes(t)
		if side := readSide(t, path); side.Lineage != lineage || len(side.Sets) != 1 || side.Sets[0].Generation != 2 {
			t.Errorf("side file %+v", side)
		}
	})
}

// A kill between the two writes of a take-over leaves a side file that does
// not list what is there; the next start repairs it and loses no key.
func TestKillWithinATakeOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "jwks.json")
		theirs, ours := newKey(t, keyring.ES256), newKey(t, keyring.ES256)
		s := adopting(2, time.Now().Add(time.Hour), ours, theirs)
		first := startFile(t, path)
		first.accept(s)
		first.stop()
		must(t, os.Remove(path))
		write(t, path, string(setOf(t, theirs)))

		h := startFile(t, path)
		h.accept(s)
		wantSet(t, path, ours, theirs)
		rest(2 * interval)
		h.wantCodes(t)
	})
}

// A new manifest is founded only where this replica's own targets show no
// trace of an old one.
func TestPublished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		path := filepath.Join(dir, "jwks.json")
		look := func() (keyring.Mark, string, error) {
			h := startFile(t, path)
			defer h.stop()
			return h.Published(t.Context(), "main")
		}
		if m, where, err := look(); err != nil || m != (keyring.Mark{}) || where != "" {
			t.Errorf("an empty directory: %+v, %q, %v", m, where, err)
		}
		write(t, path, string(setOf(t, newKey(t, keyring.ES256))))
		if m, _, err := look(); err != nil || m != (keyring.Mark{}) {
			t.Errorf("a foreign set: %+v, %v", m, err)
		}
		must(t, os.Remove(path))
		first := startFile(t, path)
		first.accept(snapshot(time.Now(), 7, newKey(t, keyring.ES256)))
		first.stop()
		want := keyring.Mark{Lineage: lineage, Generation: 7}
		if m, where, err := look(); err != nil || m != want || !strings.Contains(where, path+" (by its side file jwks.json.keyturn)") {
			t.Errorf("our set: %+v, %q, %v", m, where, err)
		}
		h := startFile(t, path)
		if m, _, err := h.Published(t.Context(), "other"); err != nil || m != (keyring.Mark{}) {
			t.Errorf("an unknown issuer: %+v, %v", m, err)
		}
		h.stop()
		must(t, os.Remove(path))
		if m, _, err := look(); err != nil || m != want {
			t.Errorf("the set is gone, its side file tells: %+v, %v", m, err)
		}
		write(t, path+".keyturn", strings.Replace(string(mustRead(t, path+".keyturn")), `"main"`, `"other"`, 1))
		if m, _, err := look(); err != nil || m != (keyring.Mark{}) {
			t.Errorf("a set of another issuer: %+v, %v", m, err)
		}
		write(t, path+".keyturn", "spoilt")
		if m, _, err := look(); err == nil || !strings.Contains(err.Error(), "cannot be read") {
			t.Errorf("a spoilt side file: %+v, %v", m, err)
		}
		must(t, os.RemoveAll(dir))
		if m, _, err := look(); err != nil || m != (keyring.Mark{}) {
			t.Errorf("no directory: %+v, %v", m, err)
		}
	})
}

// TestForeignSetIsTakenOverOnce: who may write the publish directory of one host
// does not get keys into every set by a side file of his own.
func TestForeignSetIsTakenOverOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "jwks.json")
		theirs, ours, evil := newKey(t, keyring.ES256), newKey(t, keyring.ES256), newKey(t, keyring.ES256)
		evil.Kid = "evil"
		write(t, path, foreignSet(t, members(t, theirs, nil)))
		until := time.Now().Add(24 * time.Hour)
		h := startFile(t, path)
		h.accept(adopting(2, until, ours, theirs))
		rest(2 * interval)
		wantSet(t, path, ours, theirs)
		h.wantCodes(t) // taken over, all is well
		// Whoever may write the directory on this one host, the daemon running:
		set := foreignSet(t, members(t, evil, nil))
		write(t, path, set)
		write(t, path+".keyturn", fmt.Sprintf(`{"format":1,"issuer":"main","lineage":"x","sets":[{"generation":1,"serve_until":"2999-12-31T23:59:59Z","sha256":"%x"}]}`, sha256.Sum256([]byte(set))))
		rest(2 * interval)
		if got := h.Foreign("main")["file"]; len(got) > 0 {
			t.Errorf("told to the manifest for adoption after the take-over: %v", got[0].Kid)
		}
	})
}
