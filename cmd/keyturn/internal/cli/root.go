package cli

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"

	"github.com/keyturn/keyturn/audit"
	"github.com/keyturn/keyturn/configs"
	"github.com/spf13/cobra"
)

// Config is what the command line has of the world around it.
type Config struct {
	// Args are the arguments, without the program's name.
	Args []string
	// Program is how the binary was called, for lines to paste.
	Program        string
	Version        string
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Environ is os.Environ().
	Environ []string
	// Terminal says that somebody sits before Stdin and can be asked.
	Terminal bool
	// UID is whom the try-out signs for.
	UID uint32
	// Run runs a daemon until the context ends.
	Run func(context.Context, RunOptions) error
	// Judge is what the parts of the daemon find wrong with a configuration, to be
	// told with what its loader finds.
	Judge func(*configs.Config) []configs.Fault
	// Check builds a configuration without running it; the report is for people.
	Check func(*configs.Config) (fmt.Stringer, error)
	// SetupVault makes the mount that `dev --vault` uses.
	SetupVault func(context.Context, *configs.Config) error
	// ReadAnchors reads where a replica's audit log was anchored.
	ReadAnchors func(ctx context.Context, c *configs.Config, replica string) ([]audit.Head, error)
}

// RunOptions are what a daemon takes, member by member those of package
// daemon. The command line does not import it: main joins the two, and the
// commands are tested without a daemon.
type RunOptions struct {
	Config *configs.Config
	// Reload reads the configuration again, at SIGHUP and when it has changed;
	// nil never does.
	Reload func() (*configs.Config, error)
	Logger *slog.Logger
	// Level is what a reload of log.level sets.
	Level   *slog.LevelVar
	Version string
	// Scratch is a folder that is removed when the daemon has ended; "" for none.
	Scratch string
	// Ready is called once, when the daemon can do all of its work.
	Ready func()
}

// getenv is the value of a variable, "" where it is not set.
func (c *Config) getenv(name string) string {
	for _, entry := range c.Environ {
		if value, ok := strings.CutPrefix(entry, name+"="); ok {
			return value
		}
	}
	return ""
}

// Execute runs one command line and returns its exit code.
func Execute(ctx context.Context, cfg Config) int {
	out := &output{w: cfg.Stdout}
	cfg.Stdout = out
	root := NewRootCommand(cfg)
	root.SetArgs(cfg.Args)
	cmd, err := strayWord(root, cfg.Args)
	if err == nil {
		cmd, err = root.ExecuteContextC(ctx)
	}
	if err == nil {
		err = out.err // of what does not look itself, such as the help
	}
	if err != nil {
		fmt.Fprintf(cfg.Stderr, "keyturn: %v\n", err)
	}
	code := exitCode(err)
	if code == exitUsage {
		fmt.Fprintf(cfg.Stderr, "%s --help tells more\n", cmd.CommandPath())
	}
	return code
}

// NewRootCommand is the whole command line. Parsing it needs nothing of the
// Config; running a command does.
func NewRootCommand(cfg Config) *cobra.Command {
	root := &cobra.Command{
		Use:           "keyturn",
		Short:         "keyturn keeps JWT signing keys turning over",
		Long:          "keyturn generates signing keys on a schedule, keeps their private halves in Vault,\nsigns tokens over a Unix socket and publishes the rolling key set (JWKS).",
		Version:       versionLine(cfg.Version),
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetIn(cfg.Stdin)
	root.SetOut(cfg.Stdout)
	root.SetErr(cfg.Stderr)
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		return &exitError{exitUsage, err}
	})
	root.SetHelpCommand(helpCommand(root))
	root.AddCommand(
		runCommand(&cfg), devCommand(&cfg),
		signCommand(&cfg), tokenCommand(&cfg), profilesCommand(&cfg), verifyCommand(&cfg),
		statusCommand(&cfg), keysCommand(&cfg), jwksCommand(&cfg),
		rotateCommand(&cfg), revokeCommand(&cfg), acceptCommand(&cfg), auditCommand(&cfg),
		configCommand(&cfg), versionCommand(&cfg),
	)
	root.InitDefaultCompletionCmd()
	usageErrors(root)
	root.InitDefaultHelpCmd()
	return root
}

// strayWord finds a word that stands where a command should and is none, and
// the command that it stands after. It is what is wrong, not the flags behind it,
// and where --help is one of them there is nothing to tell. Words with two
// underscores are those of the shells' completion, which come to be later.
func strayWord(root *cobra.Command, args []string) (*cobra.Command, error) {
	cmd, rest, _ := root.Find(args) // its error says the same of fewer words
	if cmd == nil || !cmd.HasSubCommands() || len(rest) == 0 || strings.HasPrefix(rest[0], "-") || strings.HasPrefix(rest[0], "__") {
		return cmd, nil
	}
	return cmd, unknownCommand(cmd, rest[0])
}

// unknownCommand names the commands that may have been meant.
func unknownCommand(cmd *cobra.Command, name string) error {
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(name); len(near) > 0 {
		return usagef("there is no command %s: is it %s?", shown(name), strings.Join(near, " or "))
	}
	return usagef("there is no command %s", shown(name))
}

// shown is an argument that stands where it should not. What is as long as a
// token is not repeated: it may be one, and errors are kept in logs.
func shown(arg string) string {
	const most = 40
	if len(arg) > most {
		return fmt.Sprintf("of %d characters", len(arg))
	}
	return strconv.Quote(arg)
}

// usageErrors makes wrong arguments a matter of usage in every command, also
// in those that cobra adds.
func usageErrors(cmd *cobra.Command) {
	if cmd.HasSubCommands() {
		cmd.Args, cmd.RunE = cobra.ArbitraryArgs, helpOrUnknown
	}
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return &exitError{exitUsage, wrongArguments(cmd, args, check, err)}
			}
			return nil
		}
	}
	for _, sub := range cmd.Commands() {
		usageErrors(sub)
	}
}

// wrongArguments says which argument is missing or one too many, where cobra
// only counts them. What a command finds itself is left as it is.
func wrongArguments(cmd *cobra.Command, args []string, check cobra.PositionalArgs, err error) error {
	counts := func(prefix string) bool { return strings.HasPrefix(err.Error(), prefix) }
	if !counts("accepts ") && !counts("requires ") && !counts("unknown command ") {
		return err
	}
	for n := len(args) - 1; n >= 0; n-- {
		if check(cmd, args[:n]) == nil {
			return fmt.Errorf("one argument too many, %s: %s", shown(args[n]), cmd.UseLine())
		}
	}
	return fmt.Errorf("an argument is missing: %s", cmd.UseLine())
}

// group is a command that only holds others.
func group(use, short string, subs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short}
	cmd.AddCommand(subs...)
	return cmd
}

// helpOrUnknown is what a command does that only holds others.
func helpOrUnknown(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	return unknownCommand(cmd, args[0])
}

// helpCommand is `keyturn help COMMAND`.
func helpCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Tell about a command",
		RunE: func(_ *cobra.Command, args []string) error {
			cmd, rest, err := root.Find(args)
			if err != nil || cmd == nil || len(rest) > 0 {
				return unknownCommand(root, strings.Join(args, " "))
			}
			return cmd.Help()
		},
	}
}

// Defaults of the sockets, as the daemon's configuration has them.
const (
	signSocketFlag, signSocketEnv   = "socket", "KEYTURN_SOCKET"
	adminSocketFlag, adminSocketEnv = "admin-socket", "KEYTURN_ADMIN_SOCKET"
)

// signSocket adds --socket and returns what makes a client of it.
func (c *Config) signSocket(cmd *cobra.Command) func() client {
	return c.socket(cmd, client{kind: "a sign socket", flag: signSocketFlag, env: signSocketEnv}, configs.DefaultSignSocket, "the daemon's sign socket")
}

// adminSocket adds --admin-socket and returns what makes a client of it.
func (c *Config) adminSocket(cmd *cobra.Command) func() client {
	return c.socket(cmd, client{kind: "the admin socket", flag: adminSocketFlag, env: adminSocketEnv}, configs.DefaultAdminSocket, "the daemon's admin socket")
}

func (c *Config) socket(cmd *cobra.Command, to client, standard, usage string) func() client {
	path := cmd.Flags().String(to.flag, "", fmt.Sprintf("%s (default %s, or %s)", usage, standard, to.env))
	return func() client {
		for _, p := range []string{*path, c.getenv(to.env), standard} {
			if p != "" {
				to.path = p
				break
			}
		}
		return to
	}
}
