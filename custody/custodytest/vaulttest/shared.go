package vaulttest

import (
	"fmt"
	"os"
	"testing"
)

// Shared is a package's tests around one server: TestMain hands it to
// goleak.VerifyTestMain, or calls its Run. Where no server runs, they all fail.
type Shared struct {
	M *testing.M
	// Server is set before the tests run.
	Server **Server
}

// Run runs the tests and returns the exit code.
func (s Shared) Run() int {
	dir, err := os.MkdirTemp("", "vaulttest")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	server, err := Launch(dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, "these tests need a real Vault:", err)
		return 1
	}
	defer server.Close()
	*s.Server = server
	return s.M.Run()
}
