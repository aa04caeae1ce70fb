package deploytest

import (
	"testing"

	"github.com/keyturn/keyturn/cmd/keyturn/internal/cli"
)

// parse holds arguments against the real command line, without running the
// command: it must be `run`, and read a configuration where the deployment
// puts it.
func parse(t *testing.T, args []string) {
	t.Helper()
	cmd, rest, err := cli.NewRootCommand(cli.Config{}).Find(args)
	if err != nil {
		t.Fatalf("keyturn %q: %v", args, err)
	}
	if cmd.Name() != "run" {
		t.Errorf("keyturn %q is the command %s, want run", args, cmd.Name())
	}
	if err := cmd.ParseFlags(rest); err != nil {
		t.Fatalf("keyturn %q: %v", args, err)
	}
	if err := cmd.ValidateArgs(cmd.Flags().Args()); err != nil {
		t.Errorf("keyturn %q: %v", args, err)
	}
	if file := cmd.Flag("config"); file == nil || file.Value.String() != "/etc/keyturn/keyturn.yaml" {
		t.Errorf("keyturn %q does not name the configuration /etc/keyturn/keyturn.yaml", args)
	}
}
