package cli

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/keyturn/keyturn/api"
	"github.com/spf13/cobra"
)

func rotateCommand(cfg *Config) *cobra.Command {
	var f orderFlags
	var to string
	cmd := &cobra.Command{
		Use:   "rotate RING",
		Short: "Let a ring's standby key sign now, or roll back to a retired one",
		Long: `Let a ring's standby key sign now, ahead of its schedule. Tokens that are out go
on verifying. Where consumers may not know the standby key yet, it is refused and
told when it will be safe; --force does it all the same, and says what it breaks.

--to KID rolls back to a retired key. Every consumer still has it, so that breaks
nothing. It can be done until the key is closed: keyturn keys tells when.`,
		Args: cobra.ExactArgs(1),
	}
	cmd.Flags().StringVar(&to, "to", "", "the key to rotate to, by its kid: a retired one, or the standby")
	f.add(cmd, "rotate before every consumer knows the standby key")
	socket := cfg.adminSocket(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		path := "/v1/rings/" + url.PathEscape(args[0]) + "/rotate"
		err := carryOut(cmd.Context(), cfg, socket(), &f, order[api.RotateResponse]{
			path: path, verb: "rotate", question: "Rotate now?", print: printRotation,
			try: api.RotateRequest{To: to, Force: f.force, DryRun: true},
			do:  api.RotateRequest{To: to, Force: f.force, Reason: f.reason},
		})
		if isProblem(err, api.NotSafeYet) && !f.force {
			return fmt.Errorf("%w\n%s", err, byForce(cmd.Context(), socket(), path, to))
		}
		return err
	}
	return cmd
}

// byForce tells what --force would break.
func byForce(ctx context.Context, c client, path, to string) string {
	var would api.RotateResponse
	if err := c.post(ctx, path, api.RotateRequest{To: to, Force: true, DryRun: true}, &would); err != nil {
		return "--force does not help: " + err.Error()
	}
	return "--force rotates all the same. " + plainText(strings.Join(would.Breaks, " "))
}

// printRotation says in words what a rotation did or would do.
func printRotation(w io.Writer, r api.RotateResponse) error {
	signs, retired := "signs now", "is retired"
	if r.DryRun {
		signs, retired = "would sign", "would be retired"
	}
	if r.Reinstated {
		signs += " again"
	}
	text := fmt.Sprintf("ring %s: %s %s", r.Ring, r.ActiveKid, signs)
	switch {
	case r.RetiredKid != "" && !r.RetiredUntil.IsZero():
		text += fmt.Sprintf("; %s %s, its tokens verify until %s", r.RetiredKid, retired, stamp(r.RetiredUntil))
	case r.RetiredKid != "":
		text += fmt.Sprintf("; %s %s", r.RetiredKid, retired)
	case !r.Changed:
		text += ", as before"
	}
	_, err := fmt.Fprintln(w, plainText(text))
	for _, b := range r.Breaks {
		_, err = fmt.Fprintln(w, plainText(b))
	}
	return err
}
