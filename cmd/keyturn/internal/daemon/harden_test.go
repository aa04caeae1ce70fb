package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/keyturn/keyturn/configs"
	"github.com/keyturn/keyturn/internal/harden"
)

// TestRules: what each setting opens, and with which access; and that nothing
// opens what no running daemon reads.
func TestRules(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	at := func(name string) string { return filepath.Join(dir, name) }
	must(t, errors.Join(os.MkdirAll(at("srv/www/jwks"), 0o755), os.MkdirAll(at("log"), 0o755), os.MkdirAll(at("real"), 0o755), os.MkdirAll(at("live"), 0o755)))
	must(t, errors.Join(os.WriteFile(at("real/cert1.pem"), nil, 0o600), os.Symlink(at("real/cert1.pem"), at("live/cert.pem"))))
	cfg := &configs.Config{
		File: at("etc/keyturn.yaml"), Store: configs.StoreVault, StateDir: at("state"), Roles: configs.Roles(),
		Local: configs.Local{Dir: at("custody"), KeyFile: at("seal/seal.key")},
		Audit: configs.Audit{File: at("log/audit.jsonl")},
		Vault: configs.Vault{Address: "https://vault.example", CACertFile: at("ca/ca.pem"), Auth: configs.Auth{RoleIDFile: at("role/id"), SecretIDFile: at("secret/id")}},
		Issuers: []configs.Issuer{{
			Publish: []configs.Target{{File: at("srv/www/jwks/jwks.json")}, {File: at("srv/none/yet/jwks.json")}, {HTTP: true}},
			Confirm: []string{"https://cdn.example:8443/jwks.json", "http://cdn.example/jwks.json"},
		}},
		Hardening: configs.Hardening{ConnectPorts: []uint16{8300}},
	}
	cfg.Listen.Sign = []configs.SignSocket{{Path: at("run/sign.sock")}}
	cfg.Listen.Admin.Path = at("admin/admin.sock")
	cfg.Listen.Public.TLS = configs.TLS{CertFile: at("live/cert.pem"), KeyFile: at("live/key.pem")}
	d := &daemon{options: Options{Config: cfg, Scratch: at("scratch")}}
	got := map[string][]harden.Access{}
	for _, r := range d.rules() {
		if rel, err := filepath.Rel(dir, r.Path); err == nil && filepath.IsLocal(rel) && !slices.Contains(got[rel], r.Access) {
			got[rel] = append(got[rel], r.Access)
		}
	}
	want := map[string][]harden.Access{
		"state": {harden.Tree}, "etc": {harden.Read}, "role": {harden.Read}, "secret": {harden.Read}, "log": {harden.Write},
		"live": {harden.Read}, "real": {harden.Read}, "run": {harden.Sockets}, "admin": {harden.Sockets},
		"srv/www": {harden.Write}, "srv": {harden.Write}, "scratch": {harden.Tree},
		".": {harden.Read, harden.Vacate}, // above the folders of credentials and certificates; above scratch
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	t.Setenv("HTTPS_PROXY", "proxy.example:3128")
	t.Setenv("http_proxy", "socks5://proxy.example")
	if diff := cmp.Diff([]uint16{53, 80, 443, 1080, 3128, 8300, 8443}, d.ports()); diff != "" {
		t.Errorf("ports (-want +got):\n%s", diff)
	}
	cfg.Store, cfg.Roles = configs.StoreLocal, []configs.Role{configs.Signer}
	rules := d.rules()
	if !slices.Contains(rules, harden.Rule{Path: at("custody"), Access: harden.Tree}) || slices.ContainsFunc(rules, func(r harden.Rule) bool {
		return r.Path == at("secret") || r.Path == at("seal") || r.Path == at("srv/www")
	}) {
		t.Errorf("rules of a local store without a publisher: %+v", rules)
	}
	cfg.Audit.File = at("srv/later/audit.jsonl") // which is not required, or it would not have started
	if rules := d.rules(); !slices.Contains(rules, harden.Rule{Path: at("srv"), Access: harden.Write}) {
		t.Errorf("rules where the folder of the audit log is missing: %+v", rules)
	}
}

// TestAbove: a folder right under the root is not given away for one that stands
// in it, unless it is said to be.
func TestAbove(t *testing.T) {
	for file, want := range map[string][2]string{ // nothing wide, /usr wide
		"/usr/jwks.json":               {"/usr", "/usr"},
		"/usr/share/jwks.json":         {"/usr/share", "/usr"},
		"/usr/share/doc/jwks.json":     {"/usr/share", "/usr/share"},
		"/no-such-folder/a/jwks.json":  {"", ""},
		"/usr/no-such/jwks.json":       {"", "/usr"},
		"/usr/share/no-such/jwks.json": {"/usr/share", "/usr/share"},
		"/jwks.json":                   {"/", "/"},
	} {
		if got := [2]string{above(file), above(file, "/usr")}; got != want {
			t.Errorf("above(%q) = %q, want %q", file, got, want)
		}
	}
}

// TestConfinedAway: only an error that comes of the confinement is explained by it.
func TestConfinedAway(t *testing.T) {
	denied := fmt.Errorf("open it: %w", fs.ErrPermission)
	cfg := &configs.Config{File: "/srv/conf/keyturn.yaml"}
	confined := &daemon{options: Options{Config: cfg}, confined: &harden.Confined{}} // without a single rule
	for name, tc := range map[string]struct {
		d    *daemon
		err  error
		file string
		want string // what the error says besides
	}{
		"confined":     {confined, denied, "/srv/tls.crt", "when no setting named a file in /srv:"},
		"made anew":    {confined, denied, "/srv/conf/keyturn.yaml", "/srv/conf was made or mounted after keyturn had confined itself"},
		"not confined": {&daemon{options: Options{Config: cfg}}, denied, "/srv/tls.crt", ""},
		"missing":      {confined, fs.ErrNotExist, "/srv/tls.crt", ""},
		"none":         {confined, nil, "/srv/tls.crt", ""},
	} {
		got := tc.d.confinedAway(tc.err, "", tc.file)
		if !errors.Is(got, tc.err) || (got != tc.err) != (tc.want != "") || tc.want != "" && !strings.Contains(got.Error(), tc.want) {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestConfineWithoutLandlock: on a kernel that has no Landlock a daemon goes on
// and says so, unless its file says that it must not.
func TestConfineWithoutLandlock(t *testing.T) {
	takeLandlockAway(t)
	for mode, want := range map[string]struct{ said, err string }{
		configs.LandlockAuto:     {`level=INFO msg="not confined" reason="this kernel has no Landlock`, ""},
		configs.LandlockRequired: {"", "hardening.landlock is required: this kernel has no Landlock that suffices"},
		configs.LandlockOff:      {`level=INFO msg="not confined, as hardening.landlock: off says"`, ""},
	} {
		var said strings.Builder
		d := &daemon{
			options: Options{Config: &configs.Config{StateDir: t.TempDir(), Hardening: configs.Hardening{Landlock: mode}}},
			log:     slog.New(slog.NewTextHandler(&said, nil)),
		}
		err := d.confine()
		if (err == nil) != (want.err == "") || err != nil && !strings.Contains(err.Error(), want.err) {
			t.Errorf("%s: %v", mode, err)
		}
		if !strings.Contains(said.String(), want.said) || d.confined != nil {
			t.Errorf("%s: confined %v, said %q", mode, d.confined, &said)
		}
	}
}

// takeLandlockAway makes this process one of a kernel without it, by a seccomp
// filter. No other test of this package may confine the process either.
func takeLandlockAway(t *testing.T) {
	t.Helper()
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}, // the number of the system call
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: unix.SYS_LANDLOCK_CREATE_RULESET},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	must(t, unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		t.Fatalf("seccomp: %v", errno)
	}
}
