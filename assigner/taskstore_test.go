package assigner

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestATasksFileThatCannotBeCarriedOutIsRefused, with what to do about it: a task
// whose settings are missing, or of a kind that is not known, is none to go by.
func TestATasksFileThatCannotBeCarriedOutIsRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		text string
		good bool
	}{
		"upgrade":                  {`{"Last":1,"Tasks":[{"ID":"upgrade-1","Kind":"upgrade","State":"running","Settings":{"MaxDown":"1"},"Steps":[]}]}`, true},
		"reindex":                  {`{"Last":1,"Tasks":[{"ID":"reindex-1","Kind":"reindex","State":"running","Reindex":{},"Steps":[]}]}`, true},
		"nothing":                  {`{}`, true},
		"upgrade without settings": {`{"Last":1,"Tasks":[{"ID":"upgrade-1","Kind":"upgrade","State":"running","Steps":[]}]}`, false},
		"reindex without settings": {`{"Last":1,"Tasks":[{"ID":"reindex-1","Kind":"reindex","State":"done","Settings":{"MaxDown":"1"},"Steps":[]}]}`, false},
		"of a newer version":       {`{"Last":1,"Tasks":[{"ID":"fly-1","Kind":"fly","State":"running","Steps":[]}]}`, false},
		"cut off":                  {`{"Last":1,"Tasks":[{"ID":"upg`, false},
	} {
		t.Run(name, func(t *testing.T) {
			intents := filepath.Join(t.TempDir(), "intents")
			if err := os.WriteFile(intents+tasksSuffix, []byte(tc.text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := openTasks(intents)
			if tc.good && err != nil || !tc.good && (err == nil || !strings.Contains(err.Error(), "move the file away")) {
				t.Errorf("opened with %v", err)
			}
		})
	}
}
