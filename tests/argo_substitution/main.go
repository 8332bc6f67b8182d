// Argo's own substitution over templates, as its controller does it when it executes a step.
//
// Reads a list of {"template", "arguments", "globals", "again"} as JSON on stdin, and writes the list of templates as
// their pods would get them. The controller substitutes again for each attempt of a retry: `again` says how often.
package main

import (
	"encoding/json"
	"log"
	"os"

	wfv1 "github.com/argoproj/argo-workflows/v3/pkg/apis/workflow/v1alpha1"
	"github.com/argoproj/argo-workflows/v3/workflow/common"
)

type request struct {
	Template  wfv1.Template     `json:"template"`
	Arguments wfv1.Arguments    `json:"arguments"`
	Globals   common.Parameters `json:"globals"`
	Again     int               `json:"again"`
}

func main() {
	var asked []request
	if err := json.NewDecoder(os.Stdin).Decode(&asked); err != nil {
		log.Fatal(err)
	}
	answers := make([]*wfv1.Template, 0, len(asked))
	for _, one := range asked {
		local := common.Parameters{"pod.name": "pod", "node.name": "node"}
		done, err := common.ProcessArgs(&one.Template, &one.Arguments, one.Globals, local, false, "", nil)
		if err != nil {
			log.Fatal(err)
		}
		for range one.Again {
			if done, err = common.SubstituteParams(done, one.Globals, local); err != nil {
				log.Fatal(err)
			}
		}
		answers = append(answers, done)
	}
	if err := json.NewEncoder(os.Stdout).Encode(answers); err != nil {
		log.Fatal(err)
	}
}
