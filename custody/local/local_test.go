package local_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/keyturn/keyturn/custody/custodytest"
	"github.com/keyturn/keyturn/custody/internal/half"
	"github.com/keyturn/keyturn/custody/local"
	"github.com/keyturn/keyturn/keyring"
)

const childEnv = "KEYTURN_TEST_OPEN_DIR"

// TestMain is also the second process of TestOneProcessAtATime.
func TestMain(m *testing.M) {
	dir := os.Getenv(childEnv)
	if dir == "" {
		os.Exit(m.Run())
	}
	c, err := local.Open(local.Config{Dir: dir, Key: testKey(1)})
	if err != nil {
		fmt.Print(err)
		os.Exit(3)
	}
	fmt.Print(c.Close())
}

func testKey(b byte) []byte { return bytes.Repeat([]byte{b}, local.KeySize) }

func open(t *testing.T, dir string) *local.Custody {
	t.Helper()
	c, err := local.Open(local.Config{Dir: dir, Key: testKey(1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestSuite(t *testing.T) {
	custodytest.Run(t, func(t *testing.T, gen half.Generator) custodytest.Custody {
		c, err := local.Open(local.Config{Dir: filepath.Join(t.TempDir(), "custody"), Key: testKey(1), Generate: gen})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		})
		return c
	})
}

// The rotator's tests live in a bubble: this custody must not leave it.
func TestInABubble(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		c := open(t, dir)
		if _, _, err := c.Create(t.Context(), "main", keyring.ES256, 0); err != nil {
			t.Fatal(err)
		}
	})
}

func TestSurvivesReopening(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	c := open(t, dir)
	jwk, handle, err := c.Create(t.Context(), "main", keyring.ES256, 0)
	if err != nil {
		t.Fatal(err)
	}
	s := custodytest.Sample("main", 7, custodytest.KeyOf(jwk, handle))
	if _, err := c.Save(t.Context(), "main", s, 0); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c = open(t, dir)
	got, version, err := c.Load(t.Context(), "main")
	if err != nil || version != 7 || got.WriteID != s.WriteID {
		t.Fatalf("Load = %+v, %d, %v", got, version, err)
	}
	if _, err := c.Signer(t.Context(), "main", got.Keys[0]); err != nil {
		t.Error(err)
	}
	// The version is the generation: it must grow.
	same := custodytest.Sample("main", 7)
	if _, err := c.Save(t.Context(), "main", same, 7); err == nil || errors.Is(err, keyring.ErrConflict) {
		t.Errorf("a generation that does not grow: %v", err)
	}
}

func TestOneProcessAtATime(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "custody")
	child := func() (string, error) {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childEnv+"="+dir)
		out, err := cmd.Output()
		return string(out), err
	}
	c := open(t, dir)
	out, err := child()
	if want := fmt.Sprintf("pid %d", os.Getpid()); err == nil || !strings.Contains(out, want) {
		t.Errorf("a second process: %v, %q; want an error with %q", err, out, want)
	}
	if _, err := local.Open(local.Config{Dir: dir, Key: testKey(1)}); err == nil {
		t.Error("opened twice by one process")
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if out, err := child(); err != nil {
		t.Errorf("after the end of the first: %v, %q", err, out)
	}
}

func TestOpenRefuses(t *testing.T) {
	made := func(t *testing.T) string {
		dir := filepath.Join(t.TempDir(), "custody")
		c := open(t, dir)
		if _, _, err := c.Create(t.Context(), "main", keyring.ES256, 0); err != nil {
			t.Fatal(err)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	for name, tc := range map[string]struct {
		key    []byte
		damage func(dir string) error
		want   string
	}{
		"another key":     {testKey(2), func(string) error { return nil }, "another one"},
		"a short key":     {testKey(1)[:16], func(string) error { return nil }, "16 bytes"},
		"open to a group": {testKey(1), func(dir string) error { return os.Chmod(dir, 0o750) }, "chmod 700"},
		"open to others":  {testKey(1), func(dir string) error { return os.Chmod(dir, 0o701) }, "chmod 700"},
		"a lost seal":     {testKey(1), func(dir string) error { return os.Remove(filepath.Join(dir, "seal")) }, "seal is gone"},
		"a damaged seal": {testKey(1), func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "seal"), []byte("keyturn sealed 1\nxx"), 0o600)
		}, "damaged"},
		"another format": {testKey(1), func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "seal"), []byte("keyturn sealed 2\n"), 0o600)
		}, "not a sealed file"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := made(t)
			if err := tc.damage(dir); err != nil {
				t.Fatal(err)
			}
			c, err := local.Open(local.Config{Dir: dir, Key: tc.key})
			if err == nil {
				c.Close()
				t.Fatal("it was opened")
			}
			if !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), dir) {
				t.Errorf("%q does not say %q and %s", err, tc.want, dir)
			}
		})
	}
	if os.Geteuid() == 0 { // who else can give a directory away
		dir := made(t)
		if err := os.Chown(dir, 1234, 0); err != nil {
			t.Fatal(err)
		}
		if c, err := local.Open(local.Config{Dir: dir, Key: testKey(1)}); err == nil || !strings.Contains(err.Error(), "belongs to uid 1234") {
			t.Errorf("another user's: %v, %v", c, err)
		}
	}
	if _, err := local.Open(local.Config{Key: testKey(1)}); err == nil {
		t.Error("no directory was opened")
	}
	// What failed must not keep the lock.
	dir := made(t)
	if _, err := local.Open(local.Config{Dir: dir, Key: testKey(2)}); err == nil {
		t.Fatal("opened with another key")
	}
	open(t, dir)
}

func TestManifestFaults(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "custody")
	c := open(t, dir)
	if _, err := c.Save(t.Context(), "main", custodytest.Sample("main", 3), 0); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "issuers", "main", "manifest.json")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	put := func(doc string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(doc), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	put(strings.Replace(string(whole), `"schema":1`, `"schema":2`, 1))
	if s, v, err := c.Load(t.Context(), "main"); !errors.Is(err, keyring.ErrSchema) || s == nil || v != 3 {
		t.Errorf("newer schema: Load = %v, %d, %v", s, v, err)
	}
	put(strings.Replace(string(whole), `"name":"main"`, `"name":"other"`, 1))
	if s, _, err := c.Load(t.Context(), "main"); !errors.Is(err, keyring.ErrCorrupt) || s != nil {
		t.Errorf("the manifest of another issuer: Load = %v, %v", s, err)
	}
	for _, doc := range []string{"", "{", "null", `{"generation":-1}`, string(whole[:len(whole)/2]), "\x00\x00"} {
		put(doc)
		s, v, err := c.Load(t.Context(), "main")
		if !errors.Is(err, keyring.ErrCorrupt) || s != nil || v == 0 {
			t.Errorf("%q: Load = %v, %d, %v; want ErrCorrupt and a version", doc, s, v, err)
		}
		next := custodytest.Sample("main", 4)
		for _, stale := range []int{0, 3, v - 1} {
			if _, err := c.Save(t.Context(), "main", next, stale); !errors.Is(err, keyring.ErrConflict) {
				t.Errorf("%q: Save over it with version %d: %v, want ErrConflict", doc, stale, err)
			}
		}
		if got, err := c.Save(t.Context(), "main", next, v); err != nil || got != 4 {
			t.Errorf("%q: who has seen it cannot replace it: %d, %v", doc, got, err)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.Load(t.Context(), "main"); !errors.Is(err, keyring.ErrUnavailable) {
		t.Errorf("a directory in its place: %v, want ErrUnavailable", err)
	}
}

func TestSweepsWhatACrashLeft(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "custody")
	c := open(t, dir)
	jwk, handle, err := c.Create(t.Context(), "main", keyring.ES256, 0)
	if err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(dir, "issuers", "main", "keys", "."+handle+".sealed.ABCDEFGHIJKLM.tmp")
	if err := os.WriteFile(left, []byte("half written"), 0o600); err != nil {
		t.Fatal(err)
	}
	if kids, err := c.List(t.Context(), "main"); err != nil || len(kids) != 1 {
		t.Errorf("List = %q, %v", kids, err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c = open(t, dir)
	if _, err := os.Lstat(left); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the temp file is still there: %v", err)
	}
	if _, err := c.Signer(t.Context(), "main", custodytest.KeyOf(jwk, handle)); err != nil {
		t.Error(err)
	}
}

func TestClosedAndCancelled(t *testing.T) {
	c := open(t, filepath.Join(t.TempDir(), "custody"))
	k := custodytest.KeyOf(keyring.JWK{Kid: "k"}, "k")
	all := func(what string, ctx context.Context, want error) {
		t.Helper()
		_, _, errLoad := c.Load(ctx, "main")
		_, errSave := c.Save(ctx, "main", custodytest.Sample("main", 1), 0)
		_, _, errCreate := c.Create(ctx, "main", keyring.ES256, 0)
		_, errList := c.List(ctx, "main")
		_, errSigner := c.Signer(ctx, "main", k)
		for i, err := range []error{errLoad, errSave, errCreate, errList, errSigner, c.Destroy(ctx, "main", "k")} {
			if !errors.Is(err, want) {
				t.Errorf("%s, call %d: %v, want %v", what, i, err, want)
			}
		}
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	all("cancelled", cancelled, context.Canceled)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	all("closed", t.Context(), keyring.ErrUnavailable)
	if err := c.Close(); err != nil {
		t.Errorf("closed twice: %v", err)
	}
}

// TestConfigHidesTheKey: whatever prints a Config prints no byte of the key.
func TestConfigHidesTheKey(t *testing.T) {
	cfg := local.Config{Dir: "/somewhere", Key: []byte("hunter2hunter2hunter2hunter2hunt")}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "config", cfg, "pointer", &cfg)
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "config", cfg, "pointer", &cfg)
	doc, err := json.Marshal(map[string]any{"config": cfg, "pointer": &cfg})
	if err != nil {
		t.Fatal(err)
	}
	within := struct{ C local.Config }{cfg}
	out := log.String() + string(doc) + cfg.String() +
		fmt.Sprintf("%v %+v %#v %s %x %d %v %+v %#v", cfg, cfg, cfg, cfg, cfg, cfg, &cfg, within, within)
	for _, shown := range []string{"hunter2", "104 117 110", "0x68, 0x75", "68756e746572", "aHVudGVy"} {
		if strings.Contains(out, shown) {
			t.Errorf("%q is printed: %s", shown, out)
		}
	}
	if !strings.Contains(out, "/somewhere") {
		t.Errorf("the place is not told: %s", out)
	}
}
