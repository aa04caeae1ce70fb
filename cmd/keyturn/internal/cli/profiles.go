package cli

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/spf13/cobra"
)

func profilesCommand(cfg *Config) *cobra.Command {
	out := formatTable
	cmd := &cobra.Command{
		Use:   "profiles",
		Short: "List the profiles that you may sign with, and what fits each",
		Long: `List the profiles that you may sign with through this socket, as the user that
you are. With -o json and yaml the claims that a request may and must name are
told, too.`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().VarP(&out, "output", "o", "how to print it")
	socket := cfg.signSocket(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var got api.Profiles
		if err := socket().get(cmd.Context(), "/v1/profiles", &got); err != nil {
			return err
		}
		if got.Profiles == nil {
			got.Profiles = []api.Profile{}
		}
		return out.print(cmd.OutOrStdout(), got.Profiles, func(w io.Writer) error { return printProfiles(w, got.Profiles) })
	}
	return cmd
}

// printProfiles is the table form of `keyturn profiles`.
func printProfiles(w io.Writer, profiles []api.Profile) error {
	var rows [][]string
	for _, p := range profiles {
		rate := ""
		if p.Rate != nil {
			rate = fmt.Sprintf("%d/s, %d at once", p.Rate.PerSecond, p.Rate.Burst)
		}
		var audiences []string
		for _, a := range p.Audiences {
			audiences = append(audiences, oneWord(a))
		}
		rows = append(rows, []string{p.Name, p.Issuer, p.Ring, p.Algorithm, strings.Join(audiences, ", "), subjectText(p.Subject),
			seconds(p.DefaultTTLSeconds), seconds(p.MaxTTLSeconds), rate, p.When})
	}
	return table(w, []string{"PROFILE", "ISSUER", "RING", "ALGORITHM", "AUDIENCES", "SUBJECT", "TTL", "MAX TTL", "RATE", "WHEN"}, rows)
}

// subjectText says who chooses the subject, and what it can be.
func subjectText(s api.Subject) string {
	switch {
	case s.Fixed != "":
		return "fixed " + oneWord(s.Fixed)
	case s.FromPeer != "":
		return "from_peer " + oneWord(s.FromPeer)
	case s.Pattern != "":
		return "pattern " + oneWord(s.Pattern)
	}
	return ""
}

func seconds(n int64) string { return rough(time.Duration(n) * time.Second) }
