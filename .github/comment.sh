#!/usr/bin/env bash
# Post a file as a comment on a pull request, or update the comment of an earlier run: .github/comment.sh OWNER/NAME NUMBER FILE
set -euo pipefail
repository=$1 number=$2 file=$3
# The first line identifies the comment. GitHub accepts at most 65,536 characters.
mark=$(head -n 1 "$file")
head -c 60000 "$file" > "$file.cut"
old=$(MARK=$mark gh api --paginate "repos/$repository/issues/$number/comments" \
  --jq '.[] | select(.user.type == "Bot" and (.body | startswith(env.MARK))) | .id' | head -n 1)
if [ -n "$old" ]; then
  gh api --method PATCH "repos/$repository/issues/comments/$old" --field "body=@$file.cut" > /dev/null
else
  gh api "repos/$repository/issues/$number/comments" --field "body=@$file.cut" > /dev/null
fi
