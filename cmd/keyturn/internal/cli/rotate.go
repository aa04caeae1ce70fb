package cli

import (
	"bufio"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/keyturn/keyturn/api"
	"github.com/spf13/cobra"
)

func rotateCommand(cfg *Config) *cobra.Command {
	var req api.RotateRequest
	var yes bool
	cmd := &cobra.Command{
		Use:   "rotate RING",
		Short: "Let a ring's standby key sign now, ahead of its schedule",
		Long: `Let a ring's standby key sign now, ahead of its schedule. Tokens that are out go
on verifying. Where consumers may not know the standby key yet, it is refused and
told when it will be safe.`,
		Args: cobra.ExactArgs(1),
	}
	f := cmd.Flags()
	f.BoolVar(&req.DryRun, "dry-run", false, "only tell what would happen")
	f.BoolVarP(&yes, "yes", "y", false, "do not ask; required without a terminal")
	f.StringVar(&req.Reason, "reason", "", "why, for the audit log")
	socket := cfg.adminSocket(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		path := "/v1/rings/" + url.PathEscape(args[0]) + "/rotate"
		if !req.DryRun && !yes {
			if !cfg.Terminal {
				return usagef("nobody is there to be asked: add --yes to rotate, or --dry-run to see what would happen")
			}
			var would api.RotateResponse
			if err := socket().post(cmd.Context(), path, api.RotateRequest{DryRun: true}, &would); err != nil {
				return err
			}
			if ok, err := cfg.confirm(rotation(would) + "\nRotate now?"); err != nil || !ok {
				return err
			}
		}
		var done api.RotateResponse
		if err := socket().post(cmd.Context(), path, req, &done); err != nil {
			return err
		}
		_, err := fmt.Fprintln(cmd.OutOrStdout(), rotation(done))
		return err
	}
	return cmd
}

// rotation says in words what a rotation did or would do.
func rotation(r api.RotateResponse) string {
	signs, retired := "signs now", "is retired"
	if r.DryRun {
		signs, retired = "would sign", "would be retired"
	}
	text := fmt.Sprintf("ring %s: %s %s", plainText(r.Ring), plainText(r.ActiveKid), signs)
	if r.RetiredKid != "" {
		text += fmt.Sprintf("; %s %s", plainText(r.RetiredKid), retired)
		if !r.RetiredUntil.IsZero() {
			text += ", its tokens verify until " + stamp(r.RetiredUntil)
		}
	}
	return text
}

// confirm asks and takes y or yes for yes. A no is not an error of anybody's,
// but nothing was done either, so it is one of the exit code's.
func (c *Config) confirm(question string) (bool, error) {
	fmt.Fprintf(c.Stderr, "%s [y/N] ", question)
	line, err := bufio.NewReader(io.LimitReader(c.Stdin, 1024)).ReadString('\n')
	if err != nil && line == "" {
		fmt.Fprintln(c.Stderr)
	}
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return true, nil
	}
	return false, fmt.Errorf("nothing was done")
}
