package cli

import (
	"fmt"
	"io"
	"net/url"

	"github.com/keyturn/keyturn/api"
	"github.com/spf13/cobra"
)

func acceptCommand(cfg *Config) *cobra.Command {
	var f orderFlags
	cmd := &cobra.Command{
		Use:   "accept ISSUER",
		Short: "Put this replica's last manifest in the place of a frozen or lost one",
		Long: `Put the manifest that this replica has seen last in the place of one that is
frozen, lost or corrupt, as after a restore of Vault from an older snapshot. What
was revoked or withdrawn stays so, and halves that came back are destroyed again.

Run it on the replica that has seen most: on another it is refused and told.
--force gives up what that one has seen beyond this one, which may be a revocation.`,
		Args: cobra.ExactArgs(1),
	}
	f.add(cmd, "give up what another replica has seen beyond this one")
	socket := cfg.adminSocket(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return carryOut(cmd.Context(), cfg, socket(), &f, order[api.AcceptResponse]{
			path: "/v1/issuers/" + url.PathEscape(args[0]) + "/accept", verb: "accept", question: "Accept it now?", print: printAcceptance,
			try: api.AcceptRequest{Force: f.force, DryRun: true},
			do:  api.AcceptRequest{Force: f.force, Reason: f.reason},
		})
	}
	return cmd
}

// printAcceptance tells what keyturn accept did or would do.
func printAcceptance(w io.Writer, a api.AcceptResponse) error {
	is, are := "is", "are"
	if a.DryRun {
		is, are = "would be", "would be"
	}
	_, err := fmt.Fprintf(w, "issuer %s: generation %d of lineage %s %s in force\n", plainText(a.Issuer), a.Generation, plainText(a.Lineage), is)
	for _, l := range []struct {
		kids []string
		what string
	}{
		{a.Retired, "retired, since its private half is gone"},
		{a.Dropped, "dropped, a standby whose private half is gone"},
		{a.Destroyed, "destroyed: its private half is there and must not be"},
	} {
		for _, kid := range l.kids {
			_, err = fmt.Fprintf(w, "%s %s %s\n", plainText(kid), is, l.what)
		}
	}
	for _, s := range a.Successors {
		_, err = fmt.Fprintln(w, plainText(successorText(s, a.DryRun)))
	}
	if len(a.Retired)+len(a.Dropped)+len(a.Destroyed) == 0 {
		_, err = fmt.Fprintf(w, "no keys %s changed\n", are)
	}
	return err
}
