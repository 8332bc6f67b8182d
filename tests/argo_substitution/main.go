// Argo's own substitution over one template, as its controller does it when a step is executed.
//
// Reads {"template", "arguments", "globals"} as JSON on stdin and writes the template as the pod would get it.
// The controller substitutes a template with a retry strategy twice: `again` repeats it as often as one likes.
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
