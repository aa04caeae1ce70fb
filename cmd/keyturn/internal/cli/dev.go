package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/keyturn/keyturn/configs"
	"github.com/keyturn/keyturn/custody/local"
	"github.com/spf13/cobra"
)

func devCommand(cfg *Config) *cobra.Command {
	var dir, scratch string
	var vault bool
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run a daemon to try out: a new key every minute, and lines to paste",
		Long: `Run a daemon to try out, on keys in a folder, with a fast clockwork: a new key
signs every minute. With --vault the private halves are in the Vault that
VAULT_ADDR and VAULT_TOKEN name, and a new key signs every two minutes. Issuer,
ring and profile are called dev; your own uid may sign any claims.`,
		Args: cobra.NoArgs,
	}
	f := cmd.Flags()
	f.StringVar(&dir, "dir", "", "folder of sockets, key set, audit log and state (default a new one under "+os.TempDir()+", removed at the end)")
	f.String("public-addr", "", "host:port that serves the key set (default 127.0.0.1:9463)")
	f.String("status-addr", "", "host:port of health and metrics (default "+configs.DefaultStatusAddr+")")
	f.BoolVar(&vault, "vault", false, "keep the private halves in Vault; sets up the mount keyturn/ first")
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		if vault && (cfg.getenv("VAULT_ADDR") == "" || cfg.getenv("VAULT_TOKEN") == "") {
			return errors.New("--vault: set VAULT_ADDR and VAULT_TOKEN; vault server -dev prints both")
		}
		ctx, stop := untilSignal(cmd.Context())
		defer stop()
		if dir == "" {
			dir, err = os.MkdirTemp("", "keyturn-dev-")
			if err != nil {
				return fmt.Errorf("folder of the try-out: %w", err)
			}
			scratch = dir
			// it holds private halves that nobody will use again
			defer func() { err = errors.Join(err, removeScratch(dir)) }()
		}
		loaded, warnings, err := cfg.prepareDev(cmd, dir, vault)
		if err != nil {
			return err
		}
		log, level := newLogger(cmd.ErrOrStderr(), loaded.Log)
		warn(log, warnings)
		if vault {
			if err := cfg.SetupVault(ctx, loaded); err != nil {
				return err
			}
		}
		return cfg.Run(ctx, RunOptions{
			Config: loaded, Logger: log, Level: level, Version: cfg.Version, Scratch: scratch,
			Ready: func() { fmt.Fprint(cmd.OutOrStdout(), cfg.toTry(loaded, vault)) },
		})
	}
	return cmd
}

// removeScratch removes a folder with all that is in it. What is above it is
// not opened, as os.RemoveAll would: a daemon that has run has confined itself, and
// may do no more there than remove a folder that is empty.
func removeScratch(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("folder of the try-out: %w", err)
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return fmt.Errorf("folder of the try-out: %w", err)
		}
	}
	if err := os.Remove(dir); err != nil {
		return fmt.Errorf("folder of the try-out: %w", err)
	}
	return nil
}

// prepareDev makes the folder, a sealing key in it unless one is there, and
// the configuration.
func (c *Config) prepareDev(cmd *cobra.Command, dir string, vault bool) (*configs.Config, []configs.Warning, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("folder of the try-out: %w", err)
	}
	loaded, warnings, err := configs.Dev(configs.DevOptions{
		Dir: dir, Vault: vault, UID: c.UID,
		Options: configs.Options{Flags: cmd.Flags(), Environ: c.Environ},
	})
	if err != nil {
		return nil, nil, err
	}
	if !vault {
		if err := local.CreateKeyFile(loaded.Local.KeyFile); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, nil, err
		}
	}
	return loaded, warnings, nil
}

// toTry is what `keyturn dev` prints once it is up: lines that can be pasted
// into a shell as they stand.
func (c *Config) toTry(cfg *configs.Config, vault bool) string {
	issuer := cfg.Issuers[0]
	sign, admin := quote(cfg.Listen.Sign[0].Path), quote(cfg.Listen.Admin.Path)
	keyturn, jwks, file := quote(c.program()), quote(issuer.URL+issuer.JWKSPath()), quote(filepath.Join(filepath.Dir(cfg.File), "jwks.json"))
	every := "minute"
	if vault {
		every = "two minutes"
	}
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	p("keyturn dev is up, its files are in %s. In another terminal:", filepath.Dir(cfg.File))
	p("")
	p("# sign with curl")
	p(`curl -s --unix-socket %s http://keyturn/v1/sign -d '{"profile":"dev","subject":"alice","audience":"demo"}'`, sign)
	p("")
	p("# sign, then verify against the published set")
	p("TOKEN=$(%s sign --socket %s --profile dev --subject alice --audience demo)", keyturn, sign)
	p(`%s verify --jwks %s --issuer %s --audience demo "$TOKEN"`, keyturn, jwks, quote(issuer.URL))
	p(`%s verify --jwks %s --audience demo "$TOKEN"`, keyturn, file)
	p("")
	p("# the same in Python, with Debian's python3-jwt")
	p(`/usr/bin/python3 -c 'import sys, jwt; token = sys.argv[1]; key = jwt.PyJWKClient("%s").get_signing_key_from_jwt(token); print(jwt.decode(token, key.key, algorithms=["ES256"], audience="demo", issuer="%s"))' "$TOKEN"`,
		issuer.URL+issuer.JWKSPath(), issuer.URL)
	p("")
	p("# watch the keys turn over")
	p("%s keys --admin-socket %s", keyturn, admin)
	p("%s status --admin-socket %s", keyturn, admin)
	p("")
	p("Every %s the next key signs; it is in the published set already. Tokens of the", every)
	p("key before go on verifying until they expire. Ctrl-C ends it.")
	return b.String()
}

// program is how another shell calls this binary.
func (c *Config) program() string {
	if !strings.Contains(c.Program, "/") {
		return c.Program
	}
	path, err := filepath.Abs(c.Program)
	if err != nil {
		return c.Program
	}
	if found, err := exec.LookPath(filepath.Base(path)); err == nil && found == path {
		return filepath.Base(path)
	}
	return path
}

// quote writes a word for a POSIX shell.
func quote(word string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-:@%+=,", r)
	}
	if word != "" && strings.IndexFunc(word, func(r rune) bool { return !plain(r) }) < 0 {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
