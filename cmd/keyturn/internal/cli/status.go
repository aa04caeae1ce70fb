package cli

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/configs"
	"github.com/spf13/cobra"
)

func statusCommand(cfg *Config) *cobra.Command {
	out := formatTable
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show how the daemon, its issuers and their targets are",
		Long: `Show how the daemon, its issuers and their targets are, and what is not as it
should be. The exit code is 2 while the daemon has no good public set.`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().VarP(&out, "output", "o", "how to print it")
	socket := cfg.adminSocket(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var got api.Issuers
		if err := socket().get(cmd.Context(), "/v1/issuers", &got); err != nil {
			return err
		}
		now := time.Now()
		if err := out.print(cmd.OutOrStdout(), got, func(w io.Writer) error { return printStatus(w, got, now) }); err != nil {
			return err
		}
		if !got.Replica.Ready {
			return unreachablef("the daemon is not ready")
		}
		return nil
	}
	return cmd
}

// printStatus is the table form of `keyturn status`.
func printStatus(w io.Writer, s api.Issuers, now time.Time) error {
	r := s.Replica
	fmt.Fprintf(w, "keyturn %s, up %s, roles %s\n", plainText(r.Version), rough(now.Sub(r.StartedAt)), plainText(strings.Join(r.Roles, ", ")))
	fmt.Fprintf(w, "public set: %s", readiness(r.Ready, r.Reasons))
	if slices.Contains(r.Roles, string(configs.Signer)) {
		fmt.Fprintf(w, " · signer: %s", readiness(r.SignerReady, nil))
	}
	fmt.Fprint(w, "\n\n")

	var issuers, targets [][]string
	for _, i := range s.Issuers {
		issuers = append(issuers, []string{i.Name, i.URL, strconv.FormatUint(i.Generation, 10), strconv.FormatInt(i.Revision, 10),
			due(i.Lease, now), rough(time.Duration(i.Timing.LeadSeconds) * time.Second), due(i.ReadAt, now)})
		for _, t := range i.Targets {
			targets = append(targets, []string{i.Name, t.Name, t.Kind, yesNo(t.Required), strconv.FormatUint(t.Generation, 10),
				due(t.ReadBackAt, now), t.Location, t.Error})
		}
	}
	if err := table(w, []string{"ISSUER", "URL", "GENERATION", "REVISION", "SIGNS UNTIL", "LEAD", "MANIFEST READ"}, issuers); err != nil {
		return err
	}
	if len(targets) > 0 {
		fmt.Fprintln(w)
		if err := table(w, []string{"ISSUER", "TARGET", "KIND", "REQUIRED", "GENERATION", "READ BACK", "LOCATION", "ERROR"}, targets); err != nil {
			return err
		}
	}
	if len(r.Reasons) > 0 {
		fmt.Fprintln(w)
	}
	for _, reason := range r.Reasons {
		fmt.Fprintln(w, plainText(reasonLine(reason, now)))
	}
	return nil
}

func readiness(ready bool, reasons []api.Reason) string {
	switch {
	case !ready:
		return "NOT READY"
	case len(reasons) > 0:
		return "ready, degraded"
	}
	return "ready"
}

// reasonLine is one thing that is not as it should be.
func reasonLine(r api.Reason, now time.Time) string {
	var about []string
	for _, s := range []string{r.Issuer, r.Target, r.Kid} {
		if s != "" {
			about = append(about, s)
		}
	}
	line := r.Code
	if len(about) > 0 {
		line += " (" + strings.Join(about, ", ") + ")"
	}
	line += ": " + r.Message
	if !r.Since.IsZero() {
		line += " — for " + rough(now.Sub(r.Since))
	}
	return line
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
