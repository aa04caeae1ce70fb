// Package keyturn_test pins the house rules that no compiler checks: which
// package may import which, and which may use a library.
package keyturn_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/keyturn/keyturn"

// rooms says what the packages under each folder may import of keyturn, beside
// themselves and the leaves. cmd joins them all. A package within a folder that
// has a row of its own may import what stands there alone, siblings included.
var rooms = map[string][]string{
	"api":       {},
	"keyring":   {},
	"token":     {},
	"audit":     {},
	"custody":   {"keyring"},
	"rotator":   {"keyring"},
	"publisher": {"keyring"},
	"signer":    {"keyring", "token", "audit", "api"},
	// Its parts, which do not import it.
	"signer/condition": {},
	"signer/gate":      {},
	"signer/keys":      {"keyring", "token", "api"},
	"signer/profile":   {"keyring", "api", "signer/condition", "signer/request"},
	"signer/request":   {"api"},
	"signer/socket":    {},
	"admin":            {"keyring", "audit", "api"},
	"client":           {"api"},
	// What users' tests import, and what users copy.
	"client/clienttest": {"client", "api", "keyring", "token"},
	"examples":          {"api", "client", "token"},
	"configs":           {"keyring"},
	// What reads YAML knows nothing of what is read; what judges a text, of the rest.
	"configs/strictyaml":      {},
	"configs/internal/syntax": {},
	"cmd": {"api", "keyring", "token", "audit", "custody", "rotator", "publisher",
		"signer", "admin", "client", "configs"},
}

// leaves hold no rule of the domain: anyone but the pure core may import them.
var leaves = []string{"internal/strictjson", "internal/unixsock", "internal/atomicfile", "internal/crashpoint", "internal/harden", "internal/loopback"}

// stdOnly are the packages that must not reach beyond the standard library,
// not even through a leaf.
var stdOnly = []string{"keyring", "api"}

// libraries says which folders may import a module from outside. One that is
// not listed may be imported by nobody.
var libraries = map[string][]string{
	"github.com/hashicorp/vault/api":              {"custody"},
	"github.com/hashicorp/vault/api/auth/approle": {"custody"},
	"github.com/robfig/cron/v3":                   {"rotator"},
	"github.com/spf13/viper":                      {"configs"},
	"github.com/spf13/pflag":                      {"configs", "cmd"},
	"github.com/spf13/cobra":                      {"cmd"},
	"github.com/golang-jwt/jwt/v5":                {"token"},
	"github.com/prometheus/client_golang":         {"admin"},
	"github.com/go-json-experiment/json":          {"internal/strictjson"},
	"go.yaml.in/yaml/v3":                          {"configs/strictyaml", "cmd"},
	"cel.dev/cel-go":                              {"signer/condition"},
	"github.com/fsnotify/fsnotify":                {"cmd"},
	"github.com/landlock-lsm/go-landlock":         {"internal/harden"},
	"golang.org/x/crypto":                         {"token"},
	"golang.org/x/oauth2":                         {"client"},
	"golang.org/x/time":                           {"signer"},
	"golang.org/x/sys":                            {"custody", "audit", "publisher", "signer", "cmd", "internal"},
	"pgregory.net/rapid":                          nil, // tests only, as what follows
	"github.com/google/go-cmp":                    nil,
	"github.com/rogpeppe/go-internal":             nil,
	"go.uber.org/goleak":                          nil,
}

// testSupport are folders that exist for tests, though their files are not named _test.go.
var testSupport = []string{"custody/custodytest", "internal/atomicfile/tinyfs", "client/clienttest", "signer/keys/keystest"}

type listed struct {
	ImportPath   string
	Dir          string
	Imports      []string
	TestImports  []string
	XTestImports []string
}

func TestImportTable(t *testing.T) {
	pkgs := list(t, "./...")
	seen := map[string]bool{}
	for _, p := range pkgs {
		path := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
		if path == "" { // this test
			continue
		}
		seen[folder(path)], seen[path] = true, true
		for _, imp := range p.Imports {
			if why := refuse(path, imp); why != "" {
				t.Errorf("%s imports %s: %s", path, imp, why)
			}
		}
		// A test may use what its package may not, but nobody's test reaches
		// round the pins of third-party code.
		for _, imp := range append(p.TestImports, p.XTestImports...) {
			if lib := library(imp); isForeign(imp) && lib == "" {
				t.Errorf("a test of %s imports %s, which is not among the libraries of this test's table", path, imp)
			}
		}
	}
	for room := range rooms {
		if !seen[room] {
			t.Errorf("no package stands under %s: the table is out of date, or the pattern missed it", room)
		}
	}
}

// TestPureCoreReachesTheStandardLibraryOnly follows every import, so that no
// detour through another package gets past the table.
func TestPureCoreReachesTheStandardLibraryOnly(t *testing.T) {
	for _, room := range stdOnly {
		for _, p := range list(t, "-deps", "./"+room) {
			if strings.Contains(strings.Split(p.ImportPath, "/")[0], ".") && p.ImportPath != module+"/"+room {
				t.Errorf("%s reaches %s", room, p.ImportPath)
			}
		}
	}
}

// TestNoInitFunctions: the style has neither init nor mutable globals. The
// first can be seen.
func TestNoInitFunctions(t *testing.T) {
	for _, p := range list(t, "./...") {
		entries, err := os.ReadDir(p.Dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if !strings.HasSuffix(e.Name(), ".go") {
				continue
			}
			src, err := os.ReadFile(p.Dir + "/" + e.Name())
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(src, []byte("\nfunc init()")) {
				t.Errorf("%s/%s has an init function", p.ImportPath, e.Name())
			}
		}
	}
}

// TestTheTableRefuses guards the guard: what is forbidden is found.
func TestTheTableRefuses(t *testing.T) {
	for _, tc := range []struct{ path, imp string }{
		{"keyring", module + "/internal/strictjson"},
		{"keyring", "github.com/google/go-cmp/cmp"},
		{"rotator", module + "/custody"},
		{"signer", module + "/publisher"},
		{"signer", "github.com/golang-jwt/jwt/v5"},
		{"custody/local", module + "/rotator"},
		{"cmd/keyturn/internal/daemon", "github.com/hashicorp/vault/api"},
		{"cmd/keyturn", module + "/custody/custodytest"},
		{"publisher", "example.com/never/heard/of"},
		{"configs/strictyaml", module + "/keyring"},
		{"configs", "go.yaml.in/yaml/v3"},
		{"client", module + "/token"},
		{"examples/go", module + "/keyring"},
		{"cmd/keyturn", module + "/client/clienttest"},
		{"signer/profile", module + "/signer"},
		{"signer/profile", module + "/signer/keys"},
		{"signer/profile", module + "/audit"},
		{"signer/request", module + "/signer/profile"},
		{"signer/socket", module + "/keyring"},
		{"signer", module + "/signer/keys/keystest"},
		{"nowhere", "fmt"},
	} {
		if refuse(tc.path, tc.imp) == "" {
			t.Errorf("%s importing %s passes", tc.path, tc.imp)
		}
	}
	for _, tc := range []struct{ path, imp string }{
		{"custody/vaultkv", "github.com/hashicorp/vault/api"},
		{"custody/vaultkv", module + "/keyring"},
		{"custody/local", module + "/custody/internal/half"},
		{"signer", module + "/internal/strictjson"},
		{"signer", module + "/signer/keys"},
		{"signer/profile", module + "/signer/request"},
		{"signer/request", module + "/internal/strictjson"},
		{"cmd/keyturn/internal/daemon", module + "/custody/local"},
		{"client/clienttest", module + "/token"},
		{"examples/go", module + "/client"},
		{"configs", module + "/configs/strictyaml"},
		{"keyring", "encoding/json"},
	} {
		if why := refuse(tc.path, tc.imp); why != "" {
			t.Errorf("%s importing %s is refused: %s", tc.path, tc.imp, why)
		}
	}
}

// refuse says why a package of keyturn may not import another; "" if it may.
func refuse(path, imp string) string {
	if isForeign(imp) {
		return refuseLibrary(path, imp)
	}
	own, ok := strings.CutPrefix(imp, module+"/")
	if !ok { // the standard library
		if !slices.Contains(leaves, path) && !isTestSupport(path) && rooms[folder(path)] == nil {
			return "no room of the house has this folder"
		}
		return ""
	}
	if isTestSupport(own) && !isTestSupport(path) {
		return "it is for tests"
	}
	may, apart := rooms[path]
	if apart = apart && path != folder(path); !apart {
		may = rooms[folder(path)]
	}
	if folder(own) == folder(path) && folder(own) != "internal" && !apart {
		return ""
	}
	if slices.Contains(leaves, own) {
		if slices.Contains(stdOnly, path) {
			return "it uses the standard library only"
		}
		return ""
	}
	if slices.Contains(may, own) || folder(own) != folder(path) && slices.Contains(may, folder(own)) {
		return ""
	}
	return "the table does not allow it (docs/decisions and the table above)"
}

func refuseLibrary(path, imp string) string {
	lib := library(imp)
	if lib == "" {
		return "no library of the table"
	}
	if isTestSupport(path) && libraries[lib] == nil {
		return ""
	}
	for _, folder := range libraries[lib] {
		if path == folder || strings.HasPrefix(path, folder+"/") {
			return ""
		}
	}
	return "that library belongs elsewhere"
}

func isTestSupport(path string) bool {
	return slices.ContainsFunc(testSupport, func(dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") })
}

// library is the module of the table that holds an imported package: the
// longest that matches, since one module's path may begin with another's.
func library(imp string) string {
	longest := ""
	for lib := range libraries {
		if (imp == lib || strings.HasPrefix(imp, lib+"/")) && len(lib) > len(longest) {
			longest = lib
		}
	}
	return longest
}

// isForeign reports whether a package is neither ours nor the standard library's.
func isForeign(imp string) bool {
	first, _, _ := strings.Cut(imp, "/")
	return strings.Contains(first, ".") && imp != module && !strings.HasPrefix(imp, module+"/")
}

// folder is the room of a package: the first element of its path.
func folder(path string) string {
	first, _, _ := strings.Cut(path, "/")
	return first
}

func list(t *testing.T, args ...string) []listed {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Dir,Imports,TestImports,XTestImports"}, args...)...)
	cmd.Env = append(os.Environ(), "GOWORK=off")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.Bytes())
	}
	var pkgs []listed
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
	if len(pkgs) == 0 {
		t.Fatal("go list found no package")
	}
	return pkgs
}
