package cli

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/keyturn/keyturn/audit"
	"github.com/keyturn/keyturn/audit/verify"
	"github.com/keyturn/keyturn/configs"
	"github.com/spf13/cobra"
)

func auditCommand(cfg *Config) *cobra.Command {
	return group("audit", "Verify or read the audit log", auditVerifyCommand(cfg), auditTailCommand())
}

// anchorFlags say where a log's heads were kept.
type anchorFlags struct {
	config, replica, file, head string
}

func auditVerifyCommand(cfg *Config) *cobra.Command {
	out := formatTable
	var o anchorFlags
	cmd := &cobra.Command{
		Use:   "verify [FILE…]",
		Short: "Say whether records of an audit log were changed, dropped, reordered or cut off",
		Long: `Verify the chain of an audit log over its files, rotated and gzipped ones
included, in whatever order they are named. The exit code is 1 where anything is
damaged, or a file cannot be read, and 2 where the store of the anchors cannot be
reached; what, where and which record is told.

That records are missing at the end, or that the log was written anew from some
record on, can be seen only with what was anchored elsewhere: --config reads it
from the daemon's store, Vault or the local one, with the daemon's own rights. It
names the files, too, where none are given. With --head the log has to hold a
record, such as the last one of the answer before: then nothing between the two
can be gone, not even with the oldest files.`,
		Example: `  keyturn audit verify --config /etc/keyturn/keyturn.yaml
  keyturn audit verify --config /etc/keyturn/keyturn.yaml --replica host-2 host-2/audit.jsonl*
  vault kv get -field=heads keyturn/issuers/main/audit/host-1 > heads.json
  keyturn audit verify --anchor heads.json /var/log/keyturn/audit.jsonl*
  keyturn audit verify --config /etc/keyturn/keyturn.yaml --head JTRRKIDC7KJDFIO5:25:bd7e…`,
		Args: cobra.ArbitraryArgs,
	}
	f := cmd.Flags()
	f.StringVar(&o.config, "config", "", "the daemon's configuration: read what is anchored from its store")
	f.StringVar(&o.replica, "replica", "", "the name under which the log is anchored (default that of the configuration)")
	f.StringVar(&o.file, "anchor", "", "a file with the anchored heads, as they are stored; - for standard input")
	f.StringVar(&o.head, "head", "", "a record that the log must hold: [CHAIN:]SEQ:HASH")
	f.VarP(&out, "output", "o", "how to print it")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		known, files, err := cfg.known(cmd, o, args)
		if err != nil {
			return err
		}
		report, err := verify.Files(files, known)
		if err != nil {
			return err
		}
		if err := out.print(cmd.OutOrStdout(), report, func(w io.Writer) error { return printReport(w, report) }); err != nil {
			return err
		}
		if !report.OK() {
			return fmt.Errorf("the audit log is damaged: %s; keep the files, the anchors and this answer as they are, and see docs/audit.md", number(len(report.Damages), "fault"))
		}
		return nil
	}
	return cmd
}

// known collects the heads from wherever the flags say, and the log's files.
func (c *Config) known(cmd *cobra.Command, o anchorFlags, files []string) (known verify.Known, _ []string, err error) {
	if o.replica != "" && o.config == "" {
		return known, nil, usagef("--replica belongs to --config: it says under which name to look there")
	}
	if o.config != "" {
		loaded, err := c.load(cmd, nil)
		if err != nil {
			return known, nil, err
		}
		if known.Anchors, err = c.storedAnchors(cmd, loaded, o.replica); err != nil {
			return known, nil, err
		}
		if len(files) == 0 {
			if files, err = logFiles(loaded); err != nil {
				return known, nil, err
			}
		}
	}
	if len(files) == 0 {
		return known, nil, usagef("name the files of the log, such as /var/log/keyturn/audit.jsonl*, or the daemon's --config")
	}
	files = withoutLocks(files)
	if o.file != "" {
		more, err := c.headsFile(o.file)
		if err != nil {
			return known, nil, err
		}
		known.Anchors = append(known.Anchors, more...)
	}
	if o.head != "" {
		h, err := oneHead(o.head, files)
		if err != nil {
			return known, nil, err
		}
		known.Held = []audit.Head{h}
	}
	return known, files, nil
}

// storedAnchors are those that the store of a configuration keeps for a replica,
// its own where none is named.
func (c *Config) storedAnchors(cmd *cobra.Command, loaded *configs.Config, replica string) ([]audit.Head, error) {
	named := replica != ""
	if !named {
		replica = loaded.Replica
	}
	heads, err := c.ReadAnchors(cmd.Context(), loaded, replica)
	switch {
	case err != nil:
		return nil, fmt.Errorf("anchors of replica %s: %w", replica, err)
	case len(heads) == 0 && named: // who names one wants its anchors, and a typing error must not hide them
		return nil, fmt.Errorf("nothing is anchored for a replica named %s", plainText(replica))
	case len(heads) == 0:
		fmt.Fprintf(cmd.ErrOrStderr(), "warning: nothing is anchored for a replica named %s\n", plainText(replica))
	}
	return heads, nil
}

// logFiles are the log of a configuration and what logrotate made of it.
func logFiles(c *configs.Config) ([]string, error) {
	if c.Audit.File == "" {
		return nil, usagef("%s has no audit.file: name the files", c.File)
	}
	dir, err := os.ReadDir(filepath.Dir(c.Audit.File))
	if err != nil {
		return nil, fmt.Errorf("audit log: %w", err)
	}
	var files []string
	for _, e := range dir {
		if strings.HasPrefix(e.Name(), filepath.Base(c.Audit.File)) && e.Type().IsRegular() {
			files = append(files, filepath.Join(filepath.Dir(c.Audit.File), e.Name()))
		}
	}
	if files = withoutLocks(files); len(files) == 0 {
		return nil, fmt.Errorf("audit log %s: %w", c.Audit.File, fs.ErrNotExist)
	}
	return files, nil
}

// withoutLocks leaves out the side files that a * finds as well, and what is
// named twice.
func withoutLocks(files []string) (out []string) {
	for _, f := range files {
		if !slices.Contains(out, f) && (!strings.HasSuffix(f, ".lock") || len(files) == 1) {
			out = append(out, f)
		}
	}
	return out
}

func (c *Config) headsFile(name string) ([]audit.Head, error) {
	if name != "-" {
		name = "@" + name
	}
	doc, err := c.argument(name, 1<<20)
	if err != nil {
		return nil, fmt.Errorf("--anchor: %w", err)
	}
	a, err := audit.ParseAnchors(doc)
	if err != nil {
		return nil, fmt.Errorf("--anchor: %w", err)
	}
	if len(a.Heads) == 0 { // who names anchors does not mean none
		return nil, errors.New("--anchor: nothing is anchored there")
	}
	return a.Heads, nil
}

var errHead = errors.New("write SEQ:HASH, or CHAIN:SEQ:HASH where the files hold several chains")

// oneHead reads --head. Where it names no chain, that of the files is meant.
func oneHead(text string, files []string) (audit.Head, error) {
	parts := strings.Split(text, ":")
	var h audit.Head
	if len(parts) == 3 {
		h.Chain, parts = parts[0], parts[1:]
	}
	if len(parts) != 2 || len(parts[1]) != 64 {
		return h, usagef("--head %q: %w", text, errHead)
	}
	seq, err := strconv.ParseUint(parts[0], 10, 63)
	if _, notHex := hex.DecodeString(parts[1]); err != nil || notHex != nil || seq == 0 {
		return h, usagef("--head %q: %w", text, errHead)
	}
	h.Seq, h.Hash = seq, strings.ToLower(parts[1])
	if h.Chain != "" {
		return h, nil
	}
	report, err := verify.Files(files, verify.Known{})
	if err != nil {
		return h, err
	}
	switch len(report.Chains) {
	case 0: // an answer about the files, and not about how --head is written
		return h, fmt.Errorf("there is no record in these files, and record %d has to be in the log", h.Seq)
	case 1:
		h.Chain = report.Chains[0].Chain
	default:
		return h, usagef("--head %q: the files hold %s: %w", text, number(len(report.Chains), "chain"), errHead)
	}
	return h, nil
}

// printReport is the table form of `keyturn audit verify`.
func printReport(w io.Writer, r verify.Report) error {
	var rows [][]string
	for _, c := range r.Chains {
		anchored := ""
		if c.Anchored != nil {
			anchored = fmt.Sprint(c.Anchored.Seq)
			if at := stamp(c.Anchored.Time); at != "" { // one that was given by hand has none
				anchored += " (" + at + ")"
			}
		}
		rows = append(rows, []string{
			c.Chain, fmt.Sprint(c.Records), fmt.Sprint(c.From), fmt.Sprint(c.Head.Seq), stamp(c.FirstTime), stamp(c.LastTime), c.Head.Hash, anchored,
		})
	}
	if err := table(w, []string{"CHAIN", "RECORDS", "FROM", "TO", "FIRST", "LAST", "HASH OF THE LAST", "ANCHORED TO"}, rows); err != nil {
		return err
	}
	if len(r.Damages) > 0 {
		fmt.Fprintln(w)
		if err := table(w, []string{"DAMAGE", "WHERE", "RECORD", "WHAT"}, damageRows(r.Damages)); err != nil {
			return err
		}
	}
	for _, n := range r.Notes {
		fmt.Fprintf(w, "\nnote: %s\n", plainText(n))
	}
	word := "whole"
	switch {
	case !r.OK():
		word = "damaged"
	case r.Records == 0: // nothing speaks for a log that is not there
		word = "empty"
	}
	_, err := fmt.Fprintf(w, "\n%s: %s in %s\n", word, number(r.Records, "record"), number(len(r.Files), "file"))
	return err
}

func damageRows(damages []verify.Damage) (rows [][]string) {
	for _, d := range damages {
		where, seq := d.File, ""
		if d.Line > 0 {
			where = fmt.Sprintf("%s:%d", d.File, d.Line)
		}
		if d.Seq > 0 {
			seq = fmt.Sprint(d.Seq)
		}
		rows = append(rows, []string{string(d.Kind), where, seq, d.Message})
	}
	return rows
}

// number counts things in words: 1 record, 2 records.
func number[N int | uint64](n N, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
