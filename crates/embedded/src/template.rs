//! Chat templates: how a list of messages becomes the one text that a model continues.
//!
//! Each GGUF file carries its own, in Jinja. It is the file's text and not ours, so it runs with bounded fuel.

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind, Value, context};

/// Qwen2's own format, for files that carry no template, and the demonstration model's.
pub(crate) const CHATML: &str = "{% for message in messages %}<|im_start|>{{ message.role }}\n\
                                 {{ message.content }}<|im_end|>\n{% endfor %}\
                                 {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

const NAME: &str = "chat";

/// Steps that one rendering may take: some hundred times what the longest admitted conversation needs.
const FUEL_MAX: u64 = 10_000_000;

/// One message of a conversation, as templates see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    /// `system`, `user`, `assistant` or `tool`.
    pub(crate) role: String,
    /// What was said.
    pub(crate) content: String,
}

impl Message {
    fn as_value(&self) -> Value {
        context! { role => self.role.as_str(), content => self.content.as_str() }
    }
}

/// A template, read and checked.
pub(crate) struct ChatTemplate {
    environment: Environment<'static>,
}

impl ChatTemplate {
    /// Reads a template; the error says what is wrong with it and where.
    pub(crate) fn new(source: String) -> Result<Self, Error> {
        let mut environment = Environment::new();
        // As the authors of such templates expect it: a block tag takes its line break and its indent along.
        environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
        environment.set_fuel(Some(FUEL_MAX));
        environment.add_function("raise_exception", |message: String| -> Result<String, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_template_owned(NAME, source)?;
        Ok(Self { environment })
    }

    /// The prompt for the assistant's next message. Fails where the template refuses the conversation (some
    /// demand that user and assistant take turns) or cannot be run here.
    pub(crate) fn render(&self, messages: &[Message]) -> Result<String, Error> {
        let messages: Vec<Value> = messages.iter().map(Message::as_value).collect();
        self.environment.get_template(NAME)?.render(context! { messages, add_generation_prompt => true })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(role: &str, content: &str) -> Message {
        Message { role: role.to_owned(), content: content.to_owned() }
    }

    /// The parts of Qwen2.5's template that matter here, as its files carry them.
    const QWEN25: &str = r#"{%- if tools %}
    {{- '<|im_start|>system\n' }}{{- tools | tojson }}
{%- else %}
    {%- if messages[0]['role'] == 'system' %}
        {{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}
    {%- else %}
        {{- '<|im_start|>system\nYou are Qwen.<|im_end|>\n' }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}
"#;

    #[test]
    fn a_conversation_becomes_chatml() {
        let template = ChatTemplate::new(CHATML.to_owned()).expect("the template is read");
        let prompt =
            template.render(&[said("system", "Be <brief>."), said("user", "Hi")]).expect("it renders");
        assert_eq!(
            prompt,
            "<|im_start|>system\nBe <brief>.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
        );
    }

    #[test]
    fn the_template_of_qwen25_adds_its_system_message_where_none_is_given() {
        let template = ChatTemplate::new(QWEN25.to_owned()).expect("the template is read");
        let asked = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n";
        assert_eq!(
            template.render(&[said("user", "Hi")]).expect("it renders"),
            format!("<|im_start|>system\nYou are Qwen.<|im_end|>\n{asked}")
        );
        assert_eq!(
            template.render(&[said("system", "Ahoy"), said("user", "Hi")]).expect("it renders"),
            format!("<|im_start|>system\nAhoy<|im_end|>\n{asked}")
        );
    }

    #[test]
    fn a_template_may_refuse_and_may_not_run_for_ever() {
        let refusing = ChatTemplate::new("{{ raise_exception('turns must alternate') }}".to_owned());
        let error = refusing.expect("the template is read").render(&[]).expect_err("it refuses");
        assert!(error.to_string().contains("turns must alternate"), "{error}");

        let endless = "{% for a in range(9999) %}{% for b in range(9999) %}{{ a }}{% endfor %}{% endfor %}";
        let endless = ChatTemplate::new(endless.to_owned()).expect("the template is read");
        assert_eq!(endless.render(&[]).expect_err("it is stopped").kind(), ErrorKind::OutOfFuel);
    }

    #[test]
    fn a_broken_template_is_refused_when_it_is_read() {
        assert!(ChatTemplate::new("{% if %}".to_owned()).is_err());
    }
}
