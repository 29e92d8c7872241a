#include "options/completion.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <vector>

namespace coppice {
namespace {

using names = std::vector<std::string>;

struct word {
  std::string text;  // "branch", "--mode"
  std::string description;
  bool takes_value = false;
  names choices;  // of the value
};

struct command {
  std::string path;  // "coppice snapshot create"
  std::vector<word> subcommands;
  std::vector<word> options;
  names argument_choices;
  std::string named;  // what its argument names: "sandbox" or "snapshot", whose "ls -q" tells the names; empty: neither
};

// CLI11 keeps the choices of an IsMember only in the text that help shows: "TEXT:{live,full,diff}".
names choices_of(const CLI::Option& option) {
  const std::string shown = option.get_type_name();
  const auto begin = shown.find('{');
  const auto end = shown.find('}', begin);
  if (begin == std::string::npos || end == std::string::npos) return {};
  return CLI::detail::split(shown.substr(begin + 1, end - begin - 1), ',');
}

// By the names that help shows: ID is always a sandbox's, TAG a snapshot's that exists, but for the one to be created.
std::string named_by(const CLI::Option& argument, const std::string& path) {
  if (argument.get_name() == "ID") return "sandbox";
  return argument.get_name() == "TAG" && !path.ends_with("snapshot create") ? "snapshot" : "";
}

void add_options(const CLI::App& app, command& to) {
  for (const CLI::Option* option : app.get_options()) {
    const names choices = choices_of(*option);
    if (option->get_positional()) {
      to.argument_choices.insert(to.argument_choices.end(), choices.begin(), choices.end());
      if (to.named.empty()) to.named = named_by(*option, to.path);
    }
    const bool takes_value = option->get_items_expected_max() > 0;
    for (const auto& name : option->get_lnames()) {
      to.options.push_back({"--" + name, option->get_description(), takes_value, choices});
    }
    for (const auto& name : option->get_snames()) {
      to.options.push_back({"-" + name, option->get_description(), takes_value, choices});
    }
  }
}

void add_commands(const CLI::App& app, const command* parent, std::vector<command>& all) {
  command one;
  one.path = (parent == nullptr ? "" : parent->path + " ") + app.get_name();
  add_options(app, one);
  if (parent != nullptr) {
    for (const word& inherited : parent->options) {
      const auto same = [&](const word& own) { return own.text == inherited.text; };
      if (inherited.text == "--version" || std::ranges::any_of(one.options, same)) continue;
      one.options.push_back(inherited);
    }
  }
  const auto below = app.get_subcommands([](const CLI::App*) { return true; });
  for (const CLI::App* each : below) one.subcommands.push_back({each->get_name(), each->get_description(), false, {}});
  all.push_back(one);
  for (const CLI::App* each : below) add_commands(*each, &one, all);
}

std::string joined(const names& list) {
  return CLI::detail::join(list, " ");
}

std::string next_words(const command& at) {
  names list;
  for (const word& each : at.subcommands) list.push_back(each.text);
  list.insert(list.end(), at.argument_choices.begin(), at.argument_choices.end());
  for (const word& each : at.options) list.push_back(each.text);
  return joined(list);
}

// 'text' for a shell, as one word.
std::string quoted(const std::string& text, const char* quote_inside) {
  std::string out = "'";
  for (const char c : text) out += c == '\'' ? std::string(quote_inside) : std::string(1, c);
  return out + "'";
}

// The two tables that bash and zsh walk along the line with: what may follow a command, and which of its options take
// a value, with the choices.
std::string table(const std::vector<command>& all, const char* begin_key, const char* end_key, bool of_values) {
  std::string lines;
  for (const command& each : all) {
    if (!of_values) lines += "    " + (begin_key + each.path) + end_key + "'" + next_words(each) + "'\n";
    for (const word& option : each.options) {
      if (!of_values || !option.takes_value) continue;
      lines += "    " + (begin_key + each.path) + " " + option.text + end_key + "'" + joined(option.choices) + "'\n";
    }
  }
  return lines;
}

std::string table_of_names(const std::vector<command>& all, const char* begin_key, const char* end_key) {
  std::string lines;
  for (const command& each : all) {
    if (!each.named.empty()) lines += "    " + (begin_key + each.path) + end_key + "'" + each.named + "'\n";
  }
  return lines;
}

std::string bash_script(const std::vector<command>& all) {
  const std::string name = all.front().path;
  return "# bash completion of " + name + "\n_" + name + "() {\n  local -A next=(\n" + table(all, "['", "']=", false) +
         "  )\n  local -A choices=(\n" + table(all, "['", "']=", true) + "  )\n  local -A named=(\n" +
         table_of_names(all, "['", "']=") + "  )\n  local command=" + name +
         R"sh( word option='' words i
  local current="${COMP_WORDS[COMP_CWORD]}"
  for ((i = 1; i < COMP_CWORD; i++)); do
    word="${COMP_WORDS[i]}"
    if [[ "$word" == '=' ]]; then
      continue
    elif [[ -n "$option" ]]; then
      option=''
    elif [[ -n "${choices["$command $word"]+is_set}" ]]; then
      option="$word"
    elif [[ -n "${next["$command $word"]+is_set}" ]]; then
      command="$command $word"
    fi
  done
  [[ "$current" == '=' ]] && current=''
  if [[ -n "$option" ]]; then
    COMPREPLY=($(compgen -W "${choices["$command $option"]}" -- "$current"))
  else
    words="${next["$command"]}"
    if [[ -n "${named["$command"]:-}" ]]; then
      words+=" $(timeout 1 "${COMP_WORDS[0]}" "${named["$command"]}" ls -q 2> /dev/null || true)"
    fi
    COMPREPLY=($(compgen -W "$words" -- "$current"))
  fi
}
complete -o default -F _)sh" +
         name + " " + name + "\n";
}

std::string zsh_script(const std::vector<command>& all) {
  const std::string name = all.front().path;
  return "#compdef " + name + "\n# zsh completion of " + name + "\n_" + name +
         "() {\n  local -A next choices named\n  next=(\n" + table(all, "'", "' ", false) + "  )\n  choices=(\n" +
         table(all, "'", "' ", true) + "  )\n  named=(\n" + table_of_names(all, "'", "' ") +
         "  )\n  local command=" + name + R"sh( option='' word key i
  for ((i = 2; i < CURRENT; i++)); do
    word=$words[i]
    key="$command $word"
    if [[ -n $option ]]; then
      option=''
    elif (( ${+choices[$key]} )); then
      option=$word
    elif (( ${+next[$key]} )); then
      command=$key
    fi
  done
  key="$command $option"
  if [[ -z $option ]]; then
    compadd -- ${=next[$command]}
    if [[ -n ${named[$command]} ]]; then
      compadd -- ${(f)"$(timeout 1 $words[1] ${named[$command]} ls -q 2> /dev/null)"}
    fi
  elif [[ -n ${choices[$key]} ]]; then
    compadd -- ${=choices[$key]}
  else
    _files
  fi
}
if [[ $funcstack[1] == _)sh" +
         name + " ]]; then\n  _" + name + " \"$@\"\nelse\n  compdef _" + name + " " + name + "\nfi\n";
}

std::string fish_word(const std::string& name, const command& at, const word& each, bool is_option) {
  std::string line = "complete -c " + name + " -n 'test \"$(__" + name + "_command)\" = \"" + at.path + "\"'";
  if (is_option) {
    line += (each.text.starts_with("--") ? " -l " + each.text.substr(2) : " -s " + each.text.substr(1));
    if (each.takes_value) line += each.choices.empty() ? " -r -F" : " -x -a " + quoted(joined(each.choices), "\\'");
  } else {
    line += " -f -a " + each.text;
  }
  return line + (each.description.empty() ? "" : " -d " + quoted(each.description, "\\'")) + "\n";
}

std::string fish_script(const std::vector<command>& all) {
  const std::string name = all.front().path;
  std::string commands;
  std::string valued;
  std::string completions;
  for (const command& each : all) {
    commands += " '" + each.path + "'";
    for (const word& sub : each.subcommands) completions += fish_word(name, each, sub, false);
    for (const auto& choice : each.argument_choices)
      completions += fish_word(name, each, {choice, "", false, {}}, false);
    const std::string lister = "\"(timeout 1 " + name + " " + each.named + " ls -q 2> /dev/null)\"";
    if (!each.named.empty()) completions += fish_word(name, each, {lister, each.named, false, {}}, false);
    for (const word& option : each.options) {
      if (option.takes_value) valued += " '" + each.path + " " + option.text + "'";
      completions += fish_word(name, each, option, true);
    }
  }
  const std::string variables = "__" + name;
  return "# fish completion of " + name + "\nset -g " + variables + "_commands" + commands + "\nset -g " + variables +
         "_valued" + valued + "\nfunction " + variables + "_command\n    set -l command " + name + R"sh(
    set -l is_value 0
    set -l line (commandline -opc)
    set -e line[1]
    for word in $line
        if test $is_value = 1
            set is_value 0
        else if contains -- "$command $word" $)sh" +
         variables + R"sh(_valued
            set is_value 1
        else if contains -- "$command $word" $)sh" +
         variables + R"sh(_commands
            set command "$command $word"
        end
    end
    echo $command
end
)sh" + "complete -c " +
         name + " -f\n" + completions;
}

}  // namespace

std::string completion_script(const CLI::App& app, const std::string& shell) {
  std::vector<command> all;
  add_commands(app, nullptr, all);
  if (shell == "zsh") return zsh_script(all);
  return shell == "fish" ? fish_script(all) : bash_script(all);
}

}  // namespace coppice
