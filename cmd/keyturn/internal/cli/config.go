package cli

import (
	"fmt"

	"github.com/keyturn/keyturn/configs"
	"github.com/spf13/cobra"
)

func configCommand(cfg *Config) *cobra.Command {
	return group("config", "Check or show the configuration", configCheckCommand(cfg), configShowCommand(cfg))
}

func configCheckCommand(cfg *Config) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Build everything without running it, and print the timeline that follows",
		Long: `Build everything without running it, and print the timeline that follows. A file
may be checked on another host than the daemon's: keys, folders and groups that
have to be there are looked at by run.`,
		Args: cobra.NoArgs,
	}
	configs.Flags(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		loaded, err := cfg.load(cmd, cfg.Judge)
		if err != nil {
			return err
		}
		report, err := cfg.Check(loaded)
		if err != nil {
			return err
		}
		_, err = fmt.Fprint(cmd.OutOrStdout(), report)
		return err
	}
	return cmd
}

func configShowCommand(cfg *Config) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Print the configuration that holds, defaults included, secrets redacted",
		Args:  cobra.NoArgs,
	}
	configs.Flags(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		loaded, err := cfg.load(cmd, nil)
		if err != nil {
			return err
		}
		doc, err := loaded.YAML()
		if err != nil {
			return err
		}
		_, err = cmd.OutOrStdout().Write(doc)
		return err
	}
	return cmd
}

// load reads the configuration that a command's flags and the environment name.
func (c *Config) load(cmd *cobra.Command, judge func(*configs.Config) []configs.Fault) (*configs.Config, error) {
	loaded, warnings, err := configs.Load(configs.Options{Flags: cmd.Flags(), Environ: c.Environ, Judge: judge})
	if err != nil {
		return nil, err
	}
	for _, w := range warnings {
		fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s\n", w)
	}
	return loaded, nil
}
