package harden

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	llsys "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// secretVariables are those of the environment that hold a secret.
var secretVariables = [...]string{"VAULT_TOKEN", "VAULT_HEADERS"}

// Process makes this process one of which nothing can be learned but by root:
//
//   - not dumpable: no core file, no debugger, and /proc/PID/mem, environ and
//     the like belong to root;
//   - RLIMIT_CORE 0, hard: not even where fs.suid_dumpable or a core pattern
//     that is a pipe would have one;
//   - no_new_privs: no program that it might be made to run gains rights;
//   - umask 0077: a file whose mode somebody forgot to set is nobody else's.
//     Those that others are to read get their mode by name, whatever the umask;
//   - VAULT_TOKEN is taken out of the environment of what it might be made to
//     run. The caller has read os.Environ before. (The kernel's copy in
//     /proc/PID/environ stays, and is root's.)
func Process() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("close the process to debuggers: %w", err)
	}
	// A seccomp filter of the service may forbid to set limits. There is no core
	// of what is not dumpable without this either.
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil && !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("forbid cores: %w", err)
	}
	// A thread has this flag for itself and hands it on to those that it makes,
	// and by now there are several.
	if err := llsys.AllThreadsPrctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("forbid new privileges: %w", err)
	}
	syscall.Umask(0o077)
	for _, name := range secretVariables {
		if err := os.Unsetenv(name); err != nil {
			return fmt.Errorf("environment: %w", err)
		}
	}
	return nil
}
