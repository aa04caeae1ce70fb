package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/configs"
	"github.com/keyturn/keyturn/keyring"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

var update = flag.Bool("update", false, "write the golden files")

// leakFree fails where goroutines outlive the tests.
type leakFree struct{ *testing.M }

func (m leakFree) Run() int {
	code := m.M.Run()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

func TestMain(m *testing.M) {
	testscript.Main(leakFree{m}, map[string]func(){"keyturn": keyturn})
}

// keyturn is the binary of the scripts: the command line as main joins it, on
// a daemon that only says what it was given.
func keyturn() {
	_, notTerminal := unix.IoctlGetTermios(int(os.Stdin.Fd()), unix.TCGETS)
	os.Exit(Execute(context.Background(), Config{
		Args: os.Args[1:], Program: "keyturn", Version: "v1.2.3", UID: 4242, Environ: os.Environ(),
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Terminal: notTerminal == nil,
		Run: fakeRun,
		Check: func(c *configs.Config) (fmt.Stringer, error) {
			if c.Issuers[0].Name == "unsafe" {
				return nil, errors.New("the lead does not fit")
			}
			return c, nil
		},
		SetupVault: func(_ context.Context, c *configs.Config) error {
			_, err := fmt.Printf("set up %s at %s\n", c.Vault.Mount, c.Vault.Address)
			return err
		},
	}))
}

func fakeRun(_ context.Context, o RunOptions) error {
	o.Logger.Info("running", "config", o.Config, "version", o.Version)
	o.Logger.Debug("running verbosely")
	if o.Reload != nil {
		again, err := o.Reload()
		fmt.Printf("reloaded %v %v\n", again, err)
	}
	if o.Ready != nil {
		o.Ready()
	}
	if os.Getenv("FAIL") != "" {
		return fmt.Errorf("log in to Vault: %w", keyring.ErrUnavailable)
	}
	return nil
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"listen": listen,
			"code":   code,
		},
		UpdateScripts: *update,
	})
}

// code runs keyturn and wants an exit code: code 2 keyturn status.
func code(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N command...")
	}
	got := "0"
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		_, got, _ = strings.Cut(err.Error(), "exit status ")
	}
	if got != args[0] {
		ts.Fatalf("exit code %s, want %s", got, args[0])
	}
}

// listen serves a Unix socket until the script ends: listen SOCKET ANSWERS.
// Each line of the file ANSWERS is METHOD PATH STATUS FILE; a dry run by force
// gets 200 and the second FILE, where there is one. Requests are written down in
// $WORK/requests.
func listen(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: listen SOCKET ANSWERS")
	}
	work := ts.Getenv("WORK")
	mux := http.NewServeMux()
	var mu sync.Mutex
	for _, line := range strings.Split(strings.TrimSpace(ts.ReadFile(args[1])), "\n") {
		f := strings.Fields(line)
		body, forced := ts.ReadFile(f[3]), ""
		if len(f) > 4 {
			forced = ts.ReadFile(f[4])
		}
		mux.HandleFunc(f[0]+" "+f[1], func(w http.ResponseWriter, r *http.Request) {
			sent, err := io.ReadAll(r.Body)
			if err != nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			log, err := os.OpenFile(filepath.Join(work, "requests"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
			if err != nil {
				return
			}
			defer log.Close()
			fmt.Fprintf(log, "%s %s %s\n", r.Method, r.URL, sent)
			var status int
			fmt.Sscan(f[2], &status)
			body := body
			if forced != "" && strings.Contains(string(sent), `"force":true`) {
				status, body = http.StatusOK, forced
			}
			if status == http.StatusServiceUnavailable {
				w.Header().Set("Retry-After", "2")
			}
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			io.WriteString(w, body)
		})
	}
	l, err := net.Listen("unix", ts.MkAbs(args[0]))
	ts.Check(err)
	srv := &http.Server{Handler: mux}
	done := make(chan struct{})
	go func() { defer close(done); srv.Serve(l) }()
	ts.Defer(func() { srv.Close(); <-done })
}

// Every command's help, in one golden file: a flag that appears, changes or
// goes is seen in review.
func TestHelp(t *testing.T) {
	var got strings.Builder
	var walk func(*cobra.Command)
	root := NewRootCommand(Config{Stdout: &got, Stderr: &got})
	walk = func(cmd *cobra.Command) {
		fmt.Fprintf(&got, "### %s\n\n", cmd.CommandPath())
		if err := cmd.Help(); err != nil {
			t.Fatal(err)
		}
		got.WriteByte('\n')
		for _, sub := range cmd.Commands() {
			if sub.Name() != "completion" && sub.Name() != "help" {
				walk(sub)
			}
		}
	}
	walk(root)
	golden(t, "help.golden", strings.ReplaceAll(got.String(), os.TempDir(), "$TMPDIR"))
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s is not what is printed (run with -update and look at the difference):\n%s", path, got)
	}
}

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func ago(d time.Duration) time.Time { return now.Add(-d) }
func in(d time.Duration) time.Time  { return now.Add(d) }

// sample is an issuer with a key in every state.
func sample() api.Issuers {
	key := func(kid, state string, change func(*api.Key)) api.Key {
		k := api.Key{Kid: kid, Algorithm: "ES256", State: state, CreatedAt: ago(24 * time.Hour)}
		change(&k)
		return k
	}
	return api.Issuers{
		Replica: api.Replica{
			Version: "v1.2.3", Roles: []string{"rotator", "signer", "publisher"}, StartedAt: ago(3*time.Hour + 2*time.Minute), Ready: true,
			Reasons: []api.Reason{{Code: "target_behind", Issuer: "main", Target: "cdn", Message: "it still serves generation 40: look at the CDN's cache", Since: ago(time.Minute)}},
		},
		Issuers: []api.Issuer{{
			Name: "main", URL: "https://tokens.example.com", Generation: 41, Revision: 2, Lease: in(20 * time.Hour), ReadAt: ago(4 * time.Second),
			Timing:  api.Timing{ClockSkewSeconds: 10, LeadSeconds: 910},
			Adopted: []api.AdoptedKey{{Kid: "foreign", Algorithm: "RS256", Until: in(48 * time.Hour)}, {Kid: "foreign-leaked", Algorithm: "RS256", Until: in(48 * time.Hour), RevokedAt: ago(time.Minute)}},
			Targets: []api.Target{
				{Name: "file", Kind: "file", Location: "/srv/jwks.json", Required: true, Generation: 41, ReadBackAt: ago(2 * time.Second)},
				{Name: "cdn", Kind: "confirm", Location: "https://cdn.example/jwks.json", Required: true, Generation: 40, Error: "served\x1b[2Jgeneration 40"},
			},
			Rings: []api.Ring{{Name: "web", NextRotation: in(time.Hour), Keys: []api.Key{
				key("standby-behind", "standby", func(k *api.Key) { k.WaitingFor = []string{"cdn", "file"} }),
				key("standby-early", "standby", func(k *api.Key) { k.SafeAt = in(2*time.Hour + time.Millisecond) }),
				key("standby-proven", "standby", func(k *api.Key) { k.SafeAt = ago(time.Hour) }),
				key("active", "active", func(k *api.Key) { k.SignUntil = in(20 * time.Hour) }),
				key("retired", "retired", func(k *api.Key) { k.SignUntil, k.WithdrawnAt = in(30*time.Minute), in(2*time.Hour) }),
				key("closed", "closed", func(k *api.Key) { k.SignUntil, k.WithdrawnAt = ago(time.Hour), in(10*time.Minute) }),
				key("withdrawn", "withdrawn", func(k *api.Key) { k.WithdrawnAt = ago(time.Minute) }),
			}}, {Name: "late", NextRotation: ago(5 * time.Minute), Keys: []api.Key{
				key("overdue", "active", func(k *api.Key) { k.SignUntil = in(time.Hour) }),
			}}, {Name: "leaked", Keys: []api.Key{
				key("leaked", "revoked", func(k *api.Key) { k.RevokedAt = ago(time.Minute) }),
				key("successor", "standby", func(k *api.Key) { k.SafeAt = in(10*time.Minute + time.Millisecond) }),
			}}},
		}},
	}
}

func TestTables(t *testing.T) {
	s := sample()
	var keys, several, status strings.Builder
	if err := printKeys(&keys, listKeys(s.Issuers), false, now); err != nil {
		t.Fatal(err)
	}
	if err := printKeys(&several, listKeys(s.Issuers[:1]), true, now); err != nil {
		t.Fatal(err)
	}
	if err := printStatus(&status, s, now); err != nil {
		t.Fatal(err)
	}
	golden(t, "tables.golden", keys.String()+"\n"+several.String()+"\n"+status.String())
	if strings.Contains(status.String(), "\x1b") {
		t.Error("an escape sequence of a target's error reaches the terminal")
	}
}
