package cli

import (
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/keyring"
	"github.com/spf13/cobra"
)

// listedKey is a key with where it belongs, as -o json and yaml print it.
type listedKey struct {
	Issuer string `json:"issuer"`
	Ring   string `json:"ring"`
	api.Key
	// NextState and NextAt are the key's next transition.
	NextState string    `json:"next_state,omitempty"`
	NextAt    time.Time `json:"next_at,omitzero"`
}

func keysCommand(cfg *Config) *cobra.Command {
	out := formatTable
	cmd := &cobra.Command{
		Use:   "keys [ISSUER]",
		Short: "List the keys, their states, what comes next, and what they wait for",
		Args:  cobra.MaximumNArgs(1),
	}
	cmd.Flags().VarP(&out, "output", "o", "how to print it")
	socket := cfg.adminSocket(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var got api.Issuers
		if err := socket().get(cmd.Context(), "/v1/issuers", &got); err != nil {
			return err
		}
		issuers, err := only(got.Issuers, args)
		if err != nil {
			return err
		}
		keys := listKeys(issuers)
		now := time.Now()
		return out.print(cmd.OutOrStdout(), keys, func(w io.Writer) error { return printKeys(w, keys, len(issuers) > 1, now) })
	}
	return cmd
}

// only keeps the issuer that was named, or all.
func only(issuers []api.Issuer, args []string) ([]api.Issuer, error) {
	if len(args) == 0 {
		return issuers, nil
	}
	var names []string
	for _, i := range issuers {
		if i.Name == args[0] {
			return []api.Issuer{i}, nil
		}
		names = append(names, i.Name)
	}
	return nil, fmt.Errorf("there is no issuer %q: the daemon has %s", args[0], strings.Join(names, ", "))
}

func listKeys(issuers []api.Issuer) []listedKey {
	keys := []listedKey{}
	for _, i := range issuers {
		skew := time.Duration(i.Timing.ClockSkewSeconds) * time.Second
		for _, r := range i.Rings {
			rotation := r.NextRotation
			if !slices.ContainsFunc(r.Keys, func(k api.Key) bool { return k.State == string(keyring.Active) }) {
				rotation = time.Unix(0, 0) // as after a revocation: as soon as the standby is safe
			}
			for _, k := range r.Keys {
				l := listedKey{Issuer: i.Name, Ring: r.Name, Key: k}
				l.NextState, l.NextAt = next(k, rotation, skew)
				keys = append(keys, l)
			}
		}
		for _, k := range i.Adopted {
			keys = append(keys, adopted(i.Name, k))
		}
	}
	return keys
}

// adopted is a key of others that stays in the set until its date.
func adopted(issuer string, k api.AdoptedKey) listedKey {
	l := listedKey{Issuer: issuer, Key: api.Key{Kid: k.Kid, Algorithm: k.Algorithm, State: "adopted", WithdrawnAt: k.Until, RevokedAt: k.RevokedAt}}
	if !k.RevokedAt.IsZero() {
		l.State, l.WithdrawnAt = string(keyring.Revoked), k.RevokedAt
		return l
	}
	l.NextState, l.NextAt = string(keyring.Withdrawn), k.Until
	return l
}

// next is the key's next state and when it enters it; the time is zero where
// something must happen first.
func next(k api.Key, rotation time.Time, skew time.Duration) (string, time.Time) {
	switch keyring.State(k.State) {
	case keyring.Standby:
		if len(k.WaitingFor) > 0 || k.SafeAt.IsZero() || rotation.IsZero() {
			return string(keyring.Active), time.Time{}
		}
		if k.SafeAt.After(rotation) { // shown in whole seconds: not one too early
			rotation = k.SafeAt.Add(time.Second - 1).Truncate(time.Second)
		}
		return string(keyring.Active), rotation
	case keyring.Active:
		return string(keyring.Retired), rotation
	case keyring.Retired:
		if k.SignUntil.IsZero() {
			return string(keyring.Closed), time.Time{}
		}
		return string(keyring.Closed), k.SignUntil.Add(skew)
	case keyring.Closed:
		return string(keyring.Withdrawn), k.WithdrawnAt
	}
	return "", time.Time{}
}

// printKeys is the table form of `keyturn keys`.
func printKeys(w io.Writer, keys []listedKey, several bool, now time.Time) error {
	header := []string{"KID", "STATE", "ALGORITHM", "RING", "CREATED", "SIGNS UNTIL", "NEXT", "WAITING FOR"}
	if several {
		header = append([]string{"ISSUER"}, header...)
	}
	var rows [][]string
	for _, k := range keys {
		row := []string{k.Kid, k.State, k.Algorithm, k.Ring, stamp(k.CreatedAt), stamp(k.SignUntil), nextText(k, now), strings.Join(k.WaitingFor, ", ")}
		if several {
			row = append([]string{k.Issuer}, row...)
		}
		rows = append(rows, row)
	}
	return table(w, header, rows)
}

func nextText(k listedKey, now time.Time) string {
	switch {
	case k.NextState == "":
		return ""
	case k.NextAt.IsZero() && len(k.WaitingFor) > 0:
		return k.NextState + ", not before it is published"
	case k.NextAt.IsZero():
		return k.NextState
	case k.NextAt.Before(now):
		return fmt.Sprintf("%s, due since %s", k.NextState, stamp(k.NextAt))
	}
	return fmt.Sprintf("%s %s", k.NextState, due(k.NextAt, now))
}

func jwksCommand(cfg *Config) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "jwks [ISSUER]",
		Short: "Print the current key set of an issuer",
		Args:  cobra.MaximumNArgs(1),
	}
	socket := cfg.signSocket(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		path := "/v1/jwks"
		if len(args) > 0 {
			path += "?" + url.Values{"issuer": args}.Encode()
		}
		body, err := socket().call(cmd.Context(), "GET", path, nil)
		if err != nil {
			return err
		}
		_, err = cmd.OutOrStdout().Write(body)
		return err
	}
	return cmd
}
