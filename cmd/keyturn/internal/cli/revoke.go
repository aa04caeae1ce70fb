package cli

import (
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/keyturn/keyturn/api"
	"github.com/spf13/cobra"
)

func revokeCommand(cfg *Config) *cobra.Command {
	var f orderFlags
	var ring string
	var all bool
	cmd := &cobra.Command{
		Use:   "revoke KID… | --ring RING --all",
		Short: "Take compromised keys out of every set, at once and for good",
		Long: `Take compromised keys out of every set, at once and for good, and destroy their
private halves. Tokens that they signed die, as soon as consumers read the set again.

Next signs the ring's standby key if every consumer knows it, else a retired key,
else nobody until the standby is safe; --force takes a standby that is not.
What dies, and until when whom it can still deceive, is told first.

A kid that begins with - stands after --.`,
		Example: `  keyturn revoke --dry-run KID
  keyturn revoke --reason "found in a backup" -- KID
  keyturn revoke --ring web --all --reason "the host was broken into"`,
	}
	cmd.Flags().StringVar(&ring, "ring", "", "revoke the keys of this ring; takes --all")
	cmd.Flags().BoolVar(&all, "all", false, "every key of --ring, its standby and its retired ones included")
	f.add(cmd, "where nobody would sign, let a standby key sign before every consumer knows it")
	cmd.Args = func(_ *cobra.Command, kids []string) error { return checkRevoke(kids, ring, all, f) }
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		return usagef("%w; a kid that begins with - stands after --", err)
	})
	socket := cfg.adminSocket(cmd)
	cmd.RunE = func(cmd *cobra.Command, kids []string) error {
		path := "/v1/revoke"
		switch {
		case ring != "":
			path = "/v1/rings/" + url.PathEscape(ring) + "/revoke"
		case len(kids) == 1:
			path, kids = "/v1/keys/"+url.PathEscape(kids[0])+"/revoke", nil
		}
		return carryOut(cmd.Context(), cfg, socket(), &f, order[api.RevokeResponse]{
			path: path, verb: "revoke", question: "Revoke now? It cannot be undone.", print: printRevocation,
			try: api.RevokeRequest{Kids: kids, SignNow: f.force, DryRun: true},
			do:  api.RevokeRequest{Kids: kids, SignNow: f.force, Reason: f.reason},
		})
	}
	return cmd
}

func checkRevoke(kids []string, ring string, all bool, f orderFlags) error {
	switch {
	case len(kids) > 0 && (ring != "" || all):
		return fmt.Errorf("name keys, or a ring with --ring RING --all, not both")
	case len(kids) == 0 && ring == "":
		return fmt.Errorf("name the keys to revoke, or a ring with --ring RING --all; keyturn keys lists them")
	case len(kids) == 0 && !all:
		return fmt.Errorf("--ring %s revokes all of its keys, and nobody signs for it until a new one is safe: add --all if that is meant", oneWord(ring))
	case strings.TrimSpace(f.reason) == "" && !f.dryRun:
		return fmt.Errorf("--reason is required: it goes into the audit log")
	}
	return nil
}

// printRevocation tells people the exposure of a revocation.
func printRevocation(w io.Writer, r api.RevokeResponse) error {
	is := "is"
	if r.DryRun {
		is = "would be"
	}
	if !r.Changed {
		_, err := fmt.Fprintf(w, "nothing changes: %s\n", plainText(already(r)))
		return err
	}
	if len(r.AlreadyRevoked) > 0 {
		fmt.Fprintf(w, "%s\n\n", plainText(already(r)))
	}
	var keys, ends [][]string
	for _, k := range r.Revoked {
		keys = append(keys, []string{k.Kid, k.Ring, k.State, stamp(k.TokensUntil)})
	}
	if err := table(w, []string{"REVOKED KEY", "RING", "WAS", "ITS TOKENS DIE, UP TO THOSE THAT EXPIRE BY"}, keys); err != nil {
		return err
	}
	fmt.Fprintln(w)
	for _, s := range r.Successors {
		fmt.Fprintln(w, plainText(successorText(s, r.DryRun)+notWaiting(s, r.DryRun)))
	}
	if len(r.Successors) == 0 {
		fmt.Fprintf(w, "No ring's active key %s changed.\n", is)
	}
	fmt.Fprintln(w)
	for _, t := range r.Targets {
		ends = append(ends, []string{t.Kind + " " + t.Name, stamp(t.StopsBy), ""})
	}
	if c := r.CutOff; c != nil && !c.SignUntil.IsZero() {
		ends = append(ends, []string{"signing by a replica that is cut off", stamp(c.SignUntil), ""})
	}
	if c := r.CutOff; c != nil && !c.ServeUntil.IsZero() {
		ends = append(ends, []string{"the set of a replica that is cut off", stamp(c.ServeUntil), ""})
	}
	for _, c := range r.Consumers {
		until := stamp(c.Until)
		if until == "" {
			until = "no fixed end"
		}
		ends = append(ends, []string{"consumers: " + strings.ReplaceAll(c.Kind, "_", " "), until, c.Note})
	}
	return table(w, []string{"WHO TRUSTS THEM", "UNTIL", "NOTE"}, ends)
}

func already(r api.RevokeResponse) string {
	if len(r.AlreadyRevoked) == 0 {
		return "there is no key to revoke"
	}
	return "revoked before: " + strings.Join(r.AlreadyRevoked, ", ")
}

// successorText says who signs for a ring.
func successorText(s api.Successor, dryRun bool) string {
	signs := "signs now"
	if dryRun {
		signs = "would sign"
	}
	switch s.Kind {
	case api.SuccessorStandby:
		return fmt.Sprintf("ring %s: %s %s; every consumer knows it.", s.Ring, s.Kid, signs)
	case api.SuccessorRetired:
		return fmt.Sprintf("ring %s: %s, which was retired, %s again; every consumer knows it.", s.Ring, s.Kid, signs)
	}
	return strings.Join(s.Breaks, " ")
}

// notWaiting says how to have a ring sign for which nobody does.
func notWaiting(s api.Successor, dryRun bool) string {
	switch {
	case s.Kind != api.SuccessorNone:
		return ""
	case dryRun:
		return " With --force it signs at once."
	}
	return fmt.Sprintf(" keyturn rotate %s --force lets it sign at once.", s.Ring)
}
