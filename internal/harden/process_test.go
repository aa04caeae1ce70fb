package harden

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// TestProcess looks at what Process is for, in all threads of the process.
func TestProcess(t *testing.T) {
	inChild(t, []string{"VAULT_TOKEN=canary", "VAULT_HEADERS=X: canary"}, func(t *testing.T, dir string) {
		must(t, Process())
		if dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); dumpable != 0 || err != nil {
			t.Errorf("dumpable %d, %v", dumpable, err)
		}
		var core unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_CORE, &core); err != nil || core != (unix.Rlimit{}) {
			t.Errorf("cores: %+v, %v", core, err)
		}
		for _, name := range []string{"VAULT_TOKEN", "VAULT_HEADERS"} {
			if _, set := os.LookupEnv(name); set {
				t.Errorf("%s is still there for children", name)
			}
		}
		must(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o666))
		info, err := os.Stat(filepath.Join(dir, "file"))
		must(t, err)
		if info.Mode() != 0o600 {
			t.Errorf("a file of mode 0666 got %v", info.Mode())
		}
		tasks, err := filepath.Glob("/proc/self/task/*/status")
		must(t, err)
		if len(tasks) < 2 {
			t.Fatalf("tasks %q", tasks)
		}
		for _, task := range tasks {
			doc, err := os.ReadFile(task)
			if errors.Is(err, os.ErrNotExist) {
				continue // a thread that has ended
			}
			must(t, err)
			if !bytes.Contains(doc, []byte("\nNoNewPrivs:\t1\n")) {
				t.Errorf("%s may gain privileges", task)
			}
		}
	})
}

func TestWithoutArguments(t *testing.T) {
	const trace = `goroutine 1 [running]:
main.(*T[...]).method(0xc000012345, {0xdeadbeef, 0x20, ...}, 0x1?)
	/src/main.go:12 +0x1d
net/http.HandlerFunc.ServeHTTP(0x47b2a0?, {0x7f1c?, 0xc0001?}, {_, _})
	/src/server.go:1 +0x29
panic({0x123, 0x456})
	/src/panic.go:1 +0x29
runtime.gopark(...)
	/src/proc.go:435
main.main()
	/src/main.go:1 +0x29
created by main.main in goroutine 7
	/src/main.go:1 +0x29
`
	const want = `goroutine 1 [running]:
main.(*T[...]).method(...)
	/src/main.go:12 +0x1d
net/http.HandlerFunc.ServeHTTP(...)
	/src/server.go:1 +0x29
panic(...)
	/src/panic.go:1 +0x29
runtime.gopark(...)
	/src/proc.go:435
main.main(...)
	/src/main.go:1 +0x29
created by main.main in goroutine 7
	/src/main.go:1 +0x29`
	if diff := cmp.Diff(want, string(withoutArguments([]byte(trace)))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestStacks: a goroutine whose arguments are a secret is told, they are not.
func TestStacks(t *testing.T) {
	secret := [4]uint64{0x1122334455667788, 0x99aabbccddeeff00, 0x0123456789abcdef, 0xfedcba9876543210}
	stop, there := make(chan struct{}), make(chan struct{})
	go holdsSecret(secret, there, stop)
	<-there
	defer close(stop)
	told := string(Stacks())
	if !strings.Contains(told, "harden.holdsSecret(...)") || !strings.Contains(told, "harden.TestStacks(...)") {
		t.Errorf("goroutines are missing in:\n%s", told)
	}
	for _, word := range secret {
		if strings.Contains(told, fmt.Sprintf("%x", word)) {
			t.Errorf("it tells %#x:\n%s", word, told)
		}
	}
	if left := regexp.MustCompile(`\([^)\n]*0x[^)\n]*\)`).FindString(told); left != "" {
		t.Errorf("it tells arguments: %s", left)
	}
}

//go:noinline
func holdsSecret(secret [4]uint64, there, stop chan struct{}) {
	close(there)
	<-stop
	if secret[0] == 1 {
		panic("not this one")
	}
}
