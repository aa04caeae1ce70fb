package cli

import (
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
damaged; what, where and which record is told.

That records are missing at the end, or that the log was written anew from some
record on, can be seen only with what was anchored elsewhere: --config reads it
from the daemon's store, Vault or the local one, with the daemon's own rights. It
names the files, too, where none are given.`,
		Example: `  keyturn audit verify --config /etc/keyturn/keyturn.yaml
  keyturn audit verify --config /etc/keyturn/keyturn.yaml --replica host-2 host-2/audit.jsonl*
  vault kv get -field=heads keyturn/issuers/main/audit/host-1 > heads.json
  keyturn audit verify --anchor heads.json /var/log/keyturn/audit.jsonl*`,
		Args: cobra.ArbitraryArgs,
	}
	f := cmd.Flags()
	f.StringVar(&o.config, "config", "", "the daemon's configuration: read what is anchored from its store")
	f.StringVar(&o.replica, "replica", "", "the name under which the log is anchored (default that of the configuration)")
	f.StringVar(&o.file, "anchor", "", "a file with the anchored heads, as they are stored; - for standard input")
	f.StringVar(&o.head, "head", "", "a record that the log must hold: [CHAIN:]SEQ:HASH")
	f.VarP(&out, "output", "o", "how to print it")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		heads, files, err := cfg.anchored(cmd, o, args)
		if err != nil {
			return err
		}
		report, err := audit.Verify(files, heads)
		if err != nil {
			return err
		}
		if err := out.print(cmd.OutOrStdout(), report, func(w io.Writer) error { return printReport(w, report) }); err != nil {
			return err
		}
		if !report.OK() {
			return fmt.Errorf("the audit log is damaged: %d faults", len(report.Damages))
		}
		return nil
	}
	return cmd
}

// anchored collects the heads from wherever the flags say, and the log's files.
func (c *Config) anchored(cmd *cobra.Command, o anchorFlags, files []string) (heads []audit.Head, _ []string, err error) {
	if o.replica != "" && o.config == "" {
		return nil, nil, usagef("--replica belongs to --config: it says under which name to look there")
	}
	if o.config != "" {
		loaded, err := c.load(cmd, nil)
		if err != nil {
			return nil, nil, err
		}
		named := o.replica != ""
		if !named {
			o.replica = loaded.Replica
		}
		if heads, err = c.ReadAnchors(cmd.Context(), loaded, o.replica); err != nil {
			return nil, nil, fmt.Errorf("anchors of replica %s: %w", o.replica, err)
		}
		switch {
		case len(heads) == 0 && named: // who names one wants its anchors, and a typing error must not hide them
			return nil, nil, fmt.Errorf("nothing is anchored for a replica named %s", plainText(o.replica))
		case len(heads) == 0:
			fmt.Fprintf(cmd.ErrOrStderr(), "warning: nothing is anchored for a replica named %s\n", plainText(o.replica))
		}
		if len(files) == 0 {
			if files, err = logFiles(loaded); err != nil {
				return nil, nil, err
			}
		}
	}
	if len(files) == 0 {
		return nil, nil, usagef("name the files of the log, such as /var/log/keyturn/audit.jsonl*, or the daemon's --config")
	}
	files = withoutLocks(files)
	if o.file != "" {
		more, err := c.headsFile(o.file)
		if err != nil {
			return nil, nil, err
		}
		heads = append(heads, more...)
	}
	if o.head != "" {
		h, err := oneHead(o.head, files)
		if err != nil {
			return nil, nil, err
		}
		heads = append(heads, h)
	}
	return heads, files, nil
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
	if err != nil || seq == 0 {
		return h, usagef("--head %q: %w", text, errHead)
	}
	h.Seq, h.Hash = seq, strings.ToLower(parts[1])
	if h.Chain != "" {
		return h, nil
	}
	report, err := audit.Verify(files, nil)
	if err != nil {
		return h, err
	}
	if len(report.Chains) != 1 {
		return h, usagef("--head %q: the files hold %d chains: %w", text, len(report.Chains), errHead)
	}
	h.Chain = report.Chains[0].Chain
	return h, nil
}

// printReport is the table form of `keyturn audit verify`.
func printReport(w io.Writer, r audit.Report) error {
	var rows [][]string
	for _, c := range r.Chains {
		anchored := ""
		if c.Anchored != nil {
			anchored = fmt.Sprintf("%d (%s)", c.Anchored.Seq, stamp(c.Anchored.Time))
		}
		rows = append(rows, []string{
			c.Chain, fmt.Sprint(c.Records), fmt.Sprint(c.From), fmt.Sprint(c.Head.Seq), stamp(c.FirstTime), stamp(c.LastTime), c.Head.Hash, anchored,
		})
	}
	if err := table(w, []string{"CHAIN", "RECORDS", "FROM", "TO", "FIRST", "LAST", "HASH OF THE LAST", "ANCHORED TO"}, rows); err != nil {
		return err
	}
	if len(r.Damages) > 0 {
		rows = nil
		for _, d := range r.Damages {
			where, seq := d.File, ""
			if d.Line > 0 {
				where = fmt.Sprintf("%s:%d", d.File, d.Line)
			}
			if d.Seq > 0 {
				seq = fmt.Sprint(d.Seq)
			}
			rows = append(rows, []string{string(d.Kind), where, seq, d.Message})
		}
		fmt.Fprintln(w)
		if err := table(w, []string{"DAMAGE", "WHERE", "RECORD", "WHAT"}, rows); err != nil {
			return err
		}
	}
	for _, n := range r.Notes {
		fmt.Fprintf(w, "\nnote: %s\n", plainText(n))
	}
	word := "whole"
	if !r.OK() {
		word = "damaged"
	}
	_, err := fmt.Fprintf(w, "\n%s: %d records in %d files\n", word, r.Records, len(r.Files))
	return err
}
