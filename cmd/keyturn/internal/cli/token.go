package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/atomicfile"
	"github.com/keyturn/keyturn/token"
	"github.com/spf13/cobra"
)

func tokenCommand(cfg *Config) *cobra.Command {
	var out, mode string
	var watch bool
	cmd := &cobra.Command{
		Use:   "token --profile P --out FILE",
		Short: "Write a token to a file, and keep a fresh one there",
		Long: `Write a token to a file, for a program that reads its token from one. Readers see
the old token or the new one, whole, and nothing follows it, not even a newline.

With --watch the token is replaced when two thirds of its life have passed, until
SIGTERM or SIGINT; SIGHUP replaces it now. While the daemon is away the old one
stays, and the reason is told on standard error, once. The file stays at the end:
programs go on reading it, and the token ends by itself.`,
		Example: `  keyturn token --profile orders --audience api://orders --out /run/orders/token
  keyturn token --profile orders --out /run/orders/token --mode 0640 --watch`,
		Args: cobra.NoArgs,
	}
	request := cfg.signRequest(cmd)
	socket := cfg.signSocket(cmd)
	f := cmd.Flags()
	f.StringVar(&out, "out", "", "the file; required")
	f.StringVar(&mode, "mode", "0600", "its mode, octal; nobody but its owner may write it")
	f.BoolVar(&watch, "watch", false, "go on, and keep a fresh token there")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		perm, err := parseMode(mode)
		switch {
		case out == "":
			return usagef("--out is missing: name the file to write the token to")
		case out == "-":
			return usagef("--out names a file: keyturn sign prints a token")
		case err != nil:
			return err
		}
		req, err := request()
		if err != nil {
			return err
		}
		t := &tokenFile{client: socket(), req: req, path: out, mode: perm, log: cmd.ErrOrStderr()}
		if !watch {
			_, err := t.renew(cmd.Context())
			return err
		}
		again := make(chan os.Signal, 1)
		signal.Notify(again, syscall.SIGHUP)
		defer signal.Stop(again)
		ctx, stop := untilSignal(cmd.Context())
		defer stop()
		return t.watch(ctx, again)
	}
	return cmd
}

// parseMode reads the mode of a file that holds a token.
func parseMode(text string) (fs.FileMode, error) {
	n, err := strconv.ParseUint(text, 8, 32)
	mode := fs.FileMode(n)
	switch {
	case err != nil || mode&^fs.ModePerm != 0:
		return 0, usagef("--mode: %q is no mode: write it in octal, such as 0600 or 0640", text)
	case mode&0o022 != 0:
		return 0, usagef("--mode: with %s others than the owner could put a token of theirs there; leave w to the owner, such as 0640", text)
	case mode&0o400 == 0:
		return 0, usagef("--mode: with %s the owner cannot read it", text)
	}
	return mode, nil
}

// tokenFile is a file with a token in it.
type tokenFile struct {
	client client
	req    api.SignRequest
	path   string
	mode   fs.FileMode
	log    io.Writer
	warned bool // of its folder
}

// renew writes a fresh token. After an error the file is as it was, but for
// one that says otherwise (atomicfile.Write).
func (t *tokenFile) renew(ctx context.Context) (api.SignResponse, error) {
	var resp api.SignResponse
	root, err := os.OpenRoot(filepath.Dir(t.path))
	if err != nil {
		return resp, fmt.Errorf("folder of %s: %w", t.path, err)
	}
	defer root.Close()
	t.warnOfFolder(root)
	if err := t.client.post(ctx, "/v1/sign", t.req, &resp); err != nil {
		return resp, err
	}
	if !isToken(resp.Token) || resp.ExpiresIn < 1 {
		return resp, t.client.noToken()
	}
	return resp, atomicfile.Write(root, filepath.Base(t.path), []byte(resp.Token), t.mode)
}

// warnOfFolder tells once of a folder in which others could put a token of theirs
// in the place of ours. With the sticky bit they cannot, whoever may write. It is no
// fault: the folder of a pod's volume is open to all, and all are its containers.
func (t *tokenFile) warnOfFolder(root *os.Root) {
	info, err := root.Stat(".")
	switch {
	case err != nil:
	case info.Mode()&fs.ModeSticky != 0:
		err = atomicfile.CheckOwner(info)
	default:
		err = atomicfile.CheckWriters(info)
	}
	if err != nil && !t.warned {
		t.warned = true
		t.say("others could put a token of theirs into the folder %s: %v", root.Name(), err)
	}
}

// left is when the token ends that an earlier run left in the file; zero where
// there is none.
func (t *tokenFile) left() time.Time {
	root, err := os.OpenRoot(filepath.Dir(t.path))
	if err != nil {
		return time.Time{} // writing will tell
	}
	defer root.Close()
	// Earlier runs that were killed while they wrote may have left more.
	if err := atomicfile.Sweep(root, filepath.Base(t.path)); err != nil {
		t.say("temporary files of earlier runs are not removed: %v", err)
	}
	raw, err := atomicfile.Read(root, filepath.Base(t.path), token.MaxBytes)
	if err != nil {
		return time.Time{}
	}
	old, err := token.Parse(string(raw))
	if err != nil {
		return time.Time{}
	}
	return old.Claims.ExpiresAt
}

// say tells an operator something, in one line. It is no place for tokens.
func (t *tokenFile) say(format string, args ...any) {
	fmt.Fprintf(t.log, "keyturn: token %s: %s\n", t.path, plainText(fmt.Sprintf(format, args...)))
}

// final reports an error that waiting does not mend: the command line, the
// profile or the place of the file is wrong, or this is no keyturn.
func final(err error) bool {
	return exitCode(err) != exitUnreachable && !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT)
}
